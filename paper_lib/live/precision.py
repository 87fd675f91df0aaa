"""Does a lower precision pay on this processor? One without units for it emulates such products, many times slower."""

import time
import warnings

import torch
from torch.nn.functional import linear

N_ROWS, WIDTH = 128, 512  # of the product that is timed, in a few milliseconds
N_TIMES = 3
WORTH_SAYING = 1.5


def warn_if_slow(precision: str, device: str) -> None:
    """Warn where products in ``precision`` (float16, bfloat16) take longer on this CPU than in float32."""
    if torch.device(device).type != "cpu" or torch.finfo(getattr(torch, precision)).bits > 16:
        return
    times_as_long = _time_product(precision) / _time_product("float32")
    if times_as_long > WORTH_SAYING:
        warnings.warn(
            f"products in {precision} take {times_as_long:.1f} times as long on this processor as in float32; "
            "leave out dtype and autocast unless you need its rounding",
            stacklevel=3,
        )


def _time_product(precision):
    dtype, seconds = getattr(torch, precision), []
    rows, weight = torch.ones(N_ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)
    for _ in range(1 + N_TIMES):  # the first also prepares
        started = time.perf_counter()
        linear(rows, weight)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
