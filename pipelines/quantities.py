"""Times, sizes and numbers as people read them, each in the unit that suits it."""


def duration(seconds: float) -> str:
    """A length of time.

    >>> duration(0.01), duration(0.31), duration(46.2), duration(346), duration(7400), duration(4e6)
    ('under 0.1 s', '0.3 s', '46 s', '5.8 min', '2.1 h', '1,111 h')
    """
    if seconds < 0.05:
        return "under 0.1 s"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


def count_text(number: float) -> str:
    """A number with the letter of its thousands.

    >>> count_text(950), count_text(23_456), count_text(1.97e12), count_text(999_499), count_text(999_500)
    ('950', '23.5 k', '1.97 T', '999 k', '1 M')
    """
    for scale, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * scale:  # it is shown by three digits
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f}"


def size_text(nbytes: float) -> str:
    """Bytes.

    >>> size_text(2.5e12), size_text(3.2e6), size_text(1000), size_text(800), size_text(0)
    ('2,500.0 GB', '3.2 MB', '1.0 kB', '800 bytes', '0 bytes')
    """
    if nbytes < 999.5:
        return f"{nbytes:.0f} bytes"
    scale, unit = next((each for each in ((1e9, "GB"), (1e6, "MB")) if nbytes >= each[0]), (1e3, "kB"))
    return f"{nbytes / scale:,.1f} {unit}"
