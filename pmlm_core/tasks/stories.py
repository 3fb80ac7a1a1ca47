"""CNN/DailyMail as first published: a `.story` file an article, and lists of URLs that say which split it is in.

A story's name is the SHA-1 (hex) of its URL. Its text is paragraphs, then highlights, each after a line `@highlight`;
all that follows the first such line is highlights, as See et al.'s make_datafiles.py has it (abisee/cnn-dailymail).
"""

import hashlib
from collections.abc import Iterator

from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.tasks.base import BadRow, SourceTarget
from pmlm_core.tasks.fields import checked
from pmlm_core.tasks.files import HUB
from pmlm_core.tasks.lines import lines
from pmlm_core.tasks.rows import Row, RowError, as_examples

LISTS = {"train": "all_train.txt", "dev": "all_val.txt", "test": "all_test.txt"}
FOLDERS = ("cnn/stories", "dailymail/stories", "cnn_stories", "dailymail_stories", "stories")
_MARK = "@highlight"
_ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")


def url_list(data_dir: str, split: str) -> str | None:
    """The list of a split's URLs in `data_dir` or its `url_lists`; None where the data set is of another form."""
    if data_dir.startswith(HUB):
        return None
    places = (storage.join(data_dir, LISTS[split]), storage.join(data_dir, "url_lists", LISTS[split]))
    return next((place for place in places if storage.exists(place)), None)


def read(data_dir: str, urls: str) -> Iterator[SourceTarget | BadRow]:
    """Yield the stories in the order of the list; a row is a line of it.

    Raises:
        DataError: there is no folder of stories.
    """
    folders = [storage.join(data_dir, *folder.split("/")) for folder in FOLDERS]
    folders = [folder for folder in folders if storage.exists(folder)]
    if not folders:
        raise DataError(f"{data_dir}: no folder of .story files; looked for {', '.join(FOLDERS)}")
    listed = (Row(urls, number, {"url": line.strip()}) for number, line in enumerate(lines(urls), 1) if line.strip())

    def story(row: Row, _place: int) -> SourceTarget:
        name = hashlib.sha1(row.fields["url"].encode("utf-8", "surrogateescape")).hexdigest()
        files = (storage.join(folder, f"{name}.story") for folder in folders)
        file = next((file for file in files if storage.exists(file)), None)
        if file is None:
            raise RowError("missing story", f"no file {name}.story for {row.fields['url']}")
        article, highlights = parse(checked("\n".join(lines(file)), file))
        if not article or not highlights:
            raise RowError("empty source" if not article else "empty target", f"{file} has no article or no highlight")
        target = "\n".join(highlights)
        return SourceTarget(name, row.number, " ".join(article), target, (target,))

    return as_examples(listed, story)


def parse(text: str) -> tuple[list[str], list[str]]:
    """Paragraphs and highlights of a story; those without a full stop get " .", as is usual with this data set.

    >>> parse("A man came.\\n\\nHe left\\n\\n@highlight\\n\\nMan came")
    (['A man came.', 'He left .'], ['Man came .'])
    """
    article: list[str] = []
    highlights: list[str] = []
    is_highlight = False
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith(_MARK):
            is_highlight = True
        elif line:
            ended = line if line.endswith(_ENDS) else f"{line} ."
            (highlights if is_highlight else article).append(ended)
    return article, highlights
