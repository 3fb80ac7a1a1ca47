"""Packing without cleverness: lists of Python numbers."""

EOS = 2
SPECIALS = {0, 1, 2, 3, 4, 5}


def texts(documents: list[list[int]], capacity: int, share: bool) -> list[list[int]]:
    """Text tokens of every window, those with nothing to mask left out."""
    windows: list[list[int]] = []
    if share:
        stream: list[int] = []
        for document in documents:
            if document and len(stream) % capacity:
                stream.append(EOS)
            stream += document
        windows = [stream[i : i + capacity] for i in range(0, len(stream), capacity)]
    else:
        for document in documents:
            windows += [document[i : i + capacity] for i in range(0, len(document), capacity)]
    return [window for window in windows if set(window) - SPECIALS]
