"""What an update would not bring, or would change unasked: the stack's parameters, the template and samconfig.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from handler.errors import SourceError
from tools import paths
from tools.operate import parameters, samconfig
from tools.operate.samconfig import Saved

DEFAULTS = parameters.defaults()
CURRENT = DEFAULTS["KlaviyoRevision"]
OLD = "2025-01-15"
GUIDED = r"""version = 0.1

[default.deploy.parameters]
stack_name = "shop"
region = "eu-west-1"
parameter_overrides = "KlaviyoUrl=\"https://a.klaviyo.com\" KlaviyoRevision=\"2025-01-15\" AlarmEmail=\"\""

# MaximumConcurrency=3 is a comment above another table
[staging.global.parameters]
stack_name = "shop-staging"
[staging.deploy.parameters]
parameter_overrides = [
  "LogLevel=DEBUG",
  "ParameterKey=MaximumConcurrency,ParameterValue=14",
  'TimeZone="Europe/Berlin" PhoneRegion=DE',
]
"""


def saved(stack: str, folder: Path, text: str) -> Saved:
    (folder / "samconfig.toml").write_text(text)
    return samconfig.read(stack, folder)


def warned(deployed: dict[str, str], known: Saved | None = None) -> list[str]:
    return list(parameters.warnings("shop", DEFAULTS | deployed, known or Saved("default")))


def test_what_guided_wrote_is_read_with_its_line(tmp_path: Path) -> None:
    guided = saved("shop", tmp_path, GUIDED)
    assert (guided.environment, guided.region) == ("default", "eu-west-1")
    assert guided.parameters == {"KlaviyoUrl": "https://a.klaviyo.com", "KlaviyoRevision": OLD, "AlarmEmail": ""}
    assert guided.place("KlaviyoRevision") == "samconfig.toml:6"


def test_a_list_and_both_forms_of_a_pair_are_read_too(tmp_path: Path) -> None:
    staging = saved("shop-staging", tmp_path, GUIDED)
    assert staging.environment == "staging"
    assert staging.parameters == {
        "LogLevel": "DEBUG",
        "MaximumConcurrency": "14",
        "TimeZone": "Europe/Berlin",
        "PhoneRegion": "DE",
    }
    assert [staging.place(name) for name in staging.parameters] == [
        f"samconfig.toml:{line}" for line in (13, 14, 15, 15)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 0.1",
        'default = "text"',
        "[default]\ndeploy = 1",
        '[default.deploy.parameters]\nstack_name = "shop"\nparameter_overrides = 5',
        '[default.deploy.parameters]\nstack_name = "shop"\nparameter_overrides = [1, "file://more.toml", "Half=\'a"]',
    ],
)
def test_a_file_of_another_form_saves_nothing_and_breaks_nothing(tmp_path: Path, text: str) -> None:
    assert not saved("shop", tmp_path, text).parameters.keys() & DEFAULTS.keys()


def test_no_file_saves_nothing(tmp_path: Path) -> None:
    assert samconfig.read("shop", tmp_path) == Saved()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^samconfig\.toml:1: expected TOML: the table's name is not closed"):
        saved("shop", tmp_path, "[default")


def test_the_files_own_comments_are_no_values() -> None:
    saved = samconfig.read("klaviyo-relay-staging")  # the repository's file
    assert saved.parameters["LogLevel"] == "DEBUG"
    line = (paths.ROOT / "samconfig.toml").read_text("utf-8").splitlines()[saved.lines["LogLevel"] - 1]
    assert line.startswith("parameter_overrides")


def test_a_stack_as_the_template_has_it_is_no_cause_for_a_warning() -> None:
    assert warned({}) == []
    assert list(parameters.notes(DEFAULTS)) == []


def test_an_old_revision_is_named_with_the_command_that_sets_the_new_one() -> None:
    (warning,) = warned({"KlaviyoRevision": OLD})
    assert f"KlaviyoRevision is {OLD} in the deployed stack" in warning
    assert warning.endswith(f"sam build && sam deploy --parameter-overrides KlaviyoRevision={CURRENT}")


def test_an_old_revision_that_is_saved_is_named_with_its_line() -> None:
    saved = Saved("default", "", {"KlaviyoRevision": OLD}, {"KlaviyoRevision": 6})
    (warning,) = warned({"KlaviyoRevision": OLD}, saved)
    assert f"samconfig.toml:6 has {OLD}, too: write {CURRENT} there" in warning
    assert "--parameter-overrides" not in warning  # the next plain deployment would put the old one back


def test_a_newer_revision_is_no_cause_for_a_warning() -> None:
    assert warned({"KlaviyoRevision": "2099-01-15"}) == []


def test_a_saved_value_that_the_next_deployment_would_put_back_is_named() -> None:
    saved = Saved("default", "", {"MaximumConcurrency": "5", "LogLevel": "INFO"}, {"MaximumConcurrency": 6})
    (warning,) = warned({"MaximumConcurrency": "14"}, saved)
    assert warning.startswith("samconfig.toml:6 has MaximumConcurrency=5, the deployed stack 14")


def test_the_parameters_that_an_older_stack_lacks_are_named() -> None:
    old = {name: value for name, value in DEFAULTS.items() if name != "Monitoring"}
    (warning,) = parameters.warnings("shop", old, Saved())
    assert "of an older version, without Monitoring" in warning


@pytest.mark.parametrize(
    ("saved", "command"),
    [
        (Saved("default"), "sam build && sam deploy"),
        (Saved("staging"), "sam build && sam deploy --config-env staging"),
        (Saved(), "sam build && sam deploy --stack-name shop"),
    ],
)
def test_the_command_reaches_the_stack_that_was_checked(saved: Saved, command: str) -> None:
    assert parameters.command("shop", saved) == command


def test_what_was_changed_is_noted_and_no_warning() -> None:
    changed = {"MaximumConcurrency": "14", "PhoneRegion": "DE"}
    assert warned(changed) == []
    (note,) = parameters.notes(DEFAULTS | changed)
    assert note == "not at the template's defaults: MaximumConcurrency=14, PhoneRegion=DE"
