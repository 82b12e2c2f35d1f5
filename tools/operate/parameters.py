"""Compare the parameters of a deployed stack with the template here, and with those of the next deployment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tools.template import source

from .samconfig import Saved

REVISION = "KlaviyoRevision"


def defaults() -> dict[str, str]:
    """Return the template's parameters with their defaults, as CloudFormation has them: texts."""
    return {name: str(parameter.get("Default", "")) for name, parameter in source()["Parameters"].items()}


def command(stack: str, saved: Saved, **parameters: str) -> str:
    """Return the command that deploys the version here to ``stack``, with these parameters changed."""
    words = ["sam build && sam deploy"]
    if not saved.environment:
        words.append(f"--stack-name {stack}")
    elif saved.environment != "default":
        words.append(f"--config-env {saved.environment}")
    if parameters:
        words += ["--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items())]
    return " ".join(words)


def warnings(stack: str, deployed: Mapping[str, str], saved: Saved) -> Iterator[str]:
    """Yield what an update of ``stack`` would not bring, or would change unasked; a sentence each."""
    known = defaults()
    if missing := sorted(known.keys() - deployed.keys()):
        yield (
            f"The deployed stack is of an older version, without {', '.join(missing)}. "
            f"Update it with: {command(stack, saved)}"
        )
    if deployed.get(REVISION, known[REVISION]) < known[REVISION]:
        yield (
            f"{REVISION} is {deployed[REVISION]} in the deployed stack; this version was made for {known[REVISION]}, "
            f"and updates keep the deployed value. {_set_revision(stack, known[REVISION], saved)}"
        )
    for name, value in saved.parameters.items():
        if name in deployed and value != deployed[name]:
            yield (
                f"{saved.place(name)} has {name}={value}, the deployed stack {deployed[name] or 'an empty value'}: "
                f"the next `sam deploy` sets it to what is in the file. Correct the file if that is not intended"
            )


def _set_revision(stack: str, current: str, saved: Saved) -> str:
    if saved.parameters.get(REVISION, current) != current:
        place = saved.place(REVISION)
        return (
            f"{place} has {saved.parameters[REVISION]}, too: write {current} there, then run: {command(stack, saved)}"
        )
    if REVISION in saved.parameters:
        return f"{saved.place(REVISION)} has it already: {command(stack, saved)}"
    return f"Set it with: {command(stack, saved, **{REVISION: current})}"


def notes(deployed: Mapping[str, str]) -> Iterator[str]:
    """Yield which parameters have other values than the template's defaults."""
    known = defaults()
    changed = [f"{name}={deployed[name]}" for name in known if deployed.get(name, known[name]) != known[name]]
    if changed:
        yield f"not at the template's defaults: {', '.join(changed)}"
