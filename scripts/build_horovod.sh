#!/usr/bin/env bash
# Builds Horovod, for engine=horovod, into the environment of a Python that has torch:
#   scripts/build_horovod.sh [PYTHON]     PYTHON is by default the suite's own, .venv/bin/python
#
# Horovod 0.28.1 of 2023 is its last release, has no wheels and does not build against today's torch as it is. This
# fetches its source from the package index, changes what has to be changed and builds it for CPU over gloo: no CUDA
# and no MPI. Needs g++ and CMake 3.13 or later, and a few minutes. The library fits the torch that it was built
# against: run this again when torch is updated.
set -euo pipefail

VERSION=0.28.1
SHA256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0

root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-$root/.venv/bin/python}
for tool in "$python" c++ cmake; do
    command -v "$tool" >/dev/null || { echo "build_horovod.sh: $tool is not there" >&2; exit 1; }
done
"$python" -c "import torch, setuptools, packaging, cloudpickle, psutil, yaml"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# CPU over gloo, for torch only.
export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO HOROVOD_WITHOUT_NVTX=1
unset HOROVOD_GPU HOROVOD_GPU_OPERATIONS
# CMake 4 refuses the bundled gloo, which asks for CMake 2.8.12.
export CMAKE_POLICY_VERSION_MINIMUM=3.5
# The bundled gloo uses uint8_t without including its header, which newer compilers do not bring in by accident.
export CXXFLAGS="${CXXFLAGS:-} -include cstdint"
# Horovod's own default is 8 jobs; the files that include torch take more than 1 GB each.
export MAKEFLAGS="${MAKEFLAGS:--j$(nproc)}"

echo "horovod==$VERSION --hash=sha256:$SHA256" >"$work/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary horovod --no-build-isolation \
    --require-hashes --requirement "$work/requirements.txt" --dest "$work"
tar -xzf "$work/horovod-$VERSION.tar.gz" -C "$work"

"$python" - "$work/horovod-$VERSION" <<'PATCHES'
import pathlib
import sys


def replace(name, old, new):
    file = pathlib.Path(sys.argv[1], name)
    text = file.read_text()
    if text.count(old) != 1:
        sys.exit(f"build_horovod.sh: {name} is not the file that the patch was made for: {old}")
    file.write_text(text.replace(old, new))


# torch's headers need C++20; Horovod asks for C++14, once for all and once for its torch part.
for name in ("CMakeLists.txt", "horovod/torch/CMakeLists.txt"):
    replace(name, "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 20)")
# A CUDA wheel of torch next to any CUDA toolkit makes Horovod compile its GPU operations, asked for or not.
replace(
    "cmake/Modules/FindPytorch.cmake", 'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)', "set(Pytorch_CUDA FALSE)"
)
# Python 3.12 has no distutils.
replace(
    "horovod/torch/CMakeLists.txt",
    "from distutils.sysconfig import get_python_inc; print(get_python_inc())",
    "import sysconfig; print(sysconfig.get_path('include'))",
)
PATCHES

"$python" -m pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-build-isolation \
    --wheel-dir "$work" "$work/horovod-$VERSION"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$work"/horovod-*.whl
"$python" -c "
import horovod.torch as hvd

hvd.init()
assert hvd.size() == 1 and hvd.gloo_built() and not hvd.cuda_built()
"
echo "horovod $VERSION is built for $("$python" -c "import torch; print('torch', torch.__version__)")"
