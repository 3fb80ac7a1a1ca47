"""Takes the picture of a sweep in MLflow's own pages, parent and children: mlflow_sweep.png.

    python docs/figures/shoot_mlflow.py sqlite:///mlflow.db pmlm-rte accuracy [dev]

Starts MLflow's server for the time of it. Needs Chromium and Pillow.
"""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from mlflow import MlflowClient
from shoot_compare import HERE, Browser, browser, shrink

PORT = 5077
COLUMNS = ("final/{split}/{metric}", "baseline/{split}/{metric}", "cost/seconds", "learning_rate", "seed", "outcome")
ROWS = "document.querySelector('.ag-row') !== null"
CLOSE_ASSISTANT = "document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')?.click()"
EXPAND = "document.querySelectorAll('[data-component-id*=runnamecellrenderer]').forEach((each) => each.click())"
OPEN_COLUMNS = "[...document.querySelectorAll('button')].find((b) => b.innerText.startsWith('Columns')).click()"
CHOOSE = """(names) => [...document.querySelectorAll('[class*="tree-treenode"]')].forEach((node) => {
    const box = node.querySelector('[class*="tree-checkbox"]'), unwanted = ['Dataset', 'Source', 'Version', 'Models'];
    const name = node.innerText.trim(), on = box?.className.includes('checkbox-checked');
    if (box && (names.includes(name) ? !on : unwanted.includes(name) && on)) box.click();
})"""


@contextlib.contextmanager
def server(store: str) -> Iterator[str]:
    """MLflow's pages over a store; yields their address."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        store,
        "--port",
        str(PORT),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait()


def until(page: Browser, condition: str, settle: float = 2.0) -> None:
    """Its pages load piece by piece and never say when they have ended."""
    for _ in range(120):
        if page.evaluate(condition):
            break
        time.sleep(0.5)
    time.sleep(settle)


def main(store: str, experiment: str, metric: str, split: str = "dev") -> None:
    found = MlflowClient(store).get_experiment_by_name(experiment)
    assert found is not None, f"{store} has no experiment {experiment}"
    target = HERE / "mlflow_sweep.png"
    names = [name.format(metric=metric, split=split) for name in COLUMNS]
    with server(store) as address, browser() as page:
        page.size(1500, 760)
        page.visit(f"{address}/#/experiments/{found.experiment_id}/runs?compareRunsMode=TABLE")
        until(page, ROWS)
        page.evaluate(CLOSE_ASSISTANT)
        page.evaluate(OPEN_COLUMNS)
        until(page, "document.querySelector('[class*=\"tree-treenode\"]') !== null")
        page.evaluate(f"({CHOOSE})({json.dumps(names)})")
        page.press("Escape")
        until(page, ROWS)
        page.evaluate(EXPAND)
        until(page, ROWS, settle=4.0)
        page.picture(target)
    shrink(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
