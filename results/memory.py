"""Memory of each rank, and the search for the largest batch that fits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RankMemory:
    """Bytes held by one rank, counted at the allocator in a launch of its own."""

    state_bytes: dict[str, int]
    """Model state in device memory between backward and update, by kind: params, master, grads, optimizer, buffers."""
    rest_bytes: int
    """Allocated when the step began."""
    peak_bytes: int
    """Largest allocation during a step: the median over the steps that were watched."""
    reserved_bytes: int | None = None
    """Held by CUDA's caching allocator at the peak; None on a CPU."""
    step_peaks_bytes: list[int] = field(default_factory=list)
    """Peak of each watched step. They differ where a communication thread frees a buffer at varying times."""
    rest_by_kind: dict[str, int] = field(default_factory=dict)
    """What ``rest_bytes`` is made of, as ``bench.measure.memory.allocations.KINDS`` names it; sums to it."""
    peak_by_kind: dict[str, int] = field(default_factory=dict)
    """The same of ``peak_bytes``."""
    peak_phase: str = ""
    """What the step was at when it needed most: ``forward``, ``backward`` or ``update``."""
    beyond_allocator_bytes: int | None = None
    """Held on the GPU by this process beyond ``reserved_bytes``; None on a CPU, and where the driver does not say."""
    host_state_bytes: dict[str, int] = field(default_factory=dict)
    """Model state in host memory between backward and update, by kind; empty without offload. On a CPU the peak, too,
    has it."""
    copied_to_host_bytes: int | None = None
    """Copied from device to host memory in a step; None without offload, and with gloo on a GPU, whose own copies would
    be counted. It counts copies, also where host and device are the same memory, and on a GPU those of the model."""
    copied_to_device_bytes: int | None = None
    """The same from host to device memory."""
    not_measured: dict[str, str] = field(default_factory=dict)
    """What could not be counted, and why; what a CPU does not have is not among them."""

    @property
    def model_state_bytes(self) -> int:
        """In device memory."""
        return sum(self.state_bytes.values())


@dataclass(frozen=True)
class Trial:
    """One batch size that a search tried."""

    batch: int
    """Samples per step and rank."""
    peak_bytes: int | None
    """Most that any rank had allocated in a watched step; None where a rank ran out of memory."""
    fits: bool


@dataclass(frozen=True)
class Search:
    """The search for the largest batch that fits a memory limit (``bench.sweep.largest_batch``), as far as it got."""

    limit_bytes: int | None
    """Per rank; None: all that the GPU has."""
    multiple_of: int
    """Only multiples of it are tried."""
    max_batch: int
    """No larger batch is tried."""
    tried: list[Trial] = field(default_factory=list)

    @property
    def smallest_unfit(self) -> int | None:
        """The smallest batch seen not to fit; None if all that was tried did."""
        return min((trial.batch for trial in self.tried if not trial.fits), default=None)

    @property
    def largest_fit(self) -> int:
        """The largest batch seen to fit, below all seen not to; 0 if none did."""
        beyond = self.smallest_unfit
        fits = (trial.batch for trial in self.tried if trial.fits)
        return max((batch for batch in fits if beyond is None or batch < beyond), default=0)

    @property
    def peak_bytes(self) -> int | None:
        """The peak at the largest batch that fits."""
        return next((trial.peak_bytes for trial in self.tried if trial.batch == self.largest_fit), None)
