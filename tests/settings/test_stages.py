from pathlib import Path

from conftest import QUICK, simulate

from geneae.data.reading import read_profiles
from geneae.fitting.runs import Request, fit_run
from geneae.folders.outputs import Output
from geneae.settings.settings import Settings
from geneae.settings.stages import STAGES, enter, listening


def test_whoever_listens_is_told_of_every_stage() -> None:
    first: list[str] = []
    second: list[str] = []
    enter("bases")
    with listening(first.append):
        enter("training")
        with listening(second.append):
            enter("judging")
    enter("report")
    assert (first, second) == (["training", "judging"], ["judging"])


def test_a_fit_goes_through_all_stages_in_their_order_once_for_each_control(tmp_path: Path) -> None:
    seen: list[str] = []
    with listening(seen.append):
        fit_run(read_profiles(simulate(60, 30)), Settings(**QUICK), Output(tmp_path / "run"), Request("", None, True))
    one_fit = ["bases", "training", "steps", "judging"]
    assert seen == [*one_fit * 3, "report"]
    assert list(STAGES) == ["reading", *one_fit, "report"]
