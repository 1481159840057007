"""Run chapters side by side: `make executed-book`, whose build would run one after the other.

Their outputs go into the cache of the build, which runs again, and reports, what failed here.
"""

import sys
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

if __name__ == "__main__":
    folder, *chapters = map(Path, sys.argv[1:])
    cache = get_cache(folder)
    cache.clear_cache()
    for chapter in chapters:
        cache.add_nb_to_project(chapter.resolve())
    load_executor("local-parallel", cache).run_and_cache(timeout=300)
