"""Launches of an operation, alone and with the backward pass to all of its arguments, beside geoopt's.

    python benchmarks/launches.py [--quick]

A launch is a call of an operator below autograd that is not a view, a number that becomes a tensor included; "forward"
is without derivatives, and cotangents are given. The counts do not depend on the machine or, here, on the size.
"""

import argparse

from _small_calls import MATRIX_SIZES, SIZES, calls, matrix_calls
from common import publish

from torchriemann.testing import count_launches


def main() -> None:
    """Print the counts of every operation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="write nothing")
    quick = parser.parse_args().quick
    lines = []
    for call in (*calls(*SIZES[0]), *(call for size in MATRIX_SIZES for call in matrix_calls(size))):
        forward, through = count_launches(call.ours, *call.tensors)
        line = {"name": call.name, "forward": forward, "with backward": through}
        if call.geoopt is not None:
            line["geoopt, forward"], line["geoopt, with backward"] = count_launches(call.geoopt, *call.tensors)
        lines.append(line)
        print(f"{call.name:40s}" + "".join(f"{k} {v:4d}   " for k, v in line.items() if k != "name"))
    if not quick:
        publish("launches", lines)


if __name__ == "__main__":
    main()
