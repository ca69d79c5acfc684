#!/usr/bin/env bash
# Numba's cache runs code of an older source after a disk was full.
#
# With:      numba 0.68.1, numpy 2.4.6, CPython 3.11 or later, Linux
# Expected:  @njit(cache=True) saves time and nothing else. Where the compiled code cannot be written, the function runs
#            all the same; and a function whose source has changed is compiled anew.
# Seen:      the call that cannot write raises OSError. It has written the new index by then, which names the file of
#            the old code. From then on, with room on the disk again, every process runs the old code without a word:
#            42 for x * 3 of 21.
# minillama: minillama/kernels/kept.py tells such errors and goes on, and keeps a digest of the source with the code.
#
# A limit on the size of files (4 KiB: the index fits, the code does not) stands in for the full disk. Exits 0 as long as
# all of this is seen.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q numba==0.68.1 numpy==2.4.6

export NUMBA_CACHE_DIR=$folder/kept
source_that_multiplies_by() {
    printf 'from numba import njit\n\n\n@njit(cache=True)\ndef f(x):\n    return x * %s\n' "$1" > f.py
}
run() { env/bin/python -c 'import f; print(f.f(21))' 2>&1 | tail -n 1; }

source_that_multiplies_by 2
first=$(run)
source_that_multiplies_by 3
full=$(ulimit -f 4; run) || true
later=$(run)
rm -r kept
fresh=$(run)
printf 'x * 2 of 21: %s\nx * 3, no room: %s\nx * 3, room again: %s\nx * 3, no cache: %s\n' "$first" "$full" "$later" "$fresh"
[[ $first == 42 && $full == "OSError: [Errno 27] File too large" && $later == 42 && $fresh == 63 ]]
