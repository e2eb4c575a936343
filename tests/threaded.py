"""A module that leaves a thread running when it is imported: after it, the fork server must not fork."""

import threading
import time

threading.Thread(target=lambda: time.sleep(3600), daemon=True).start()
