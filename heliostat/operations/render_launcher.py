"""`heliostat render launcher`: the file that Ray's `ray up` takes, from `cluster.launcher` of a spec."""

from __future__ import annotations

from pathlib import Path

from heliostat.cluster.launcher.render import PROVIDERS, text
from heliostat.cluster.launcher.written import write
from heliostat.infra.errors import ConfigError
from heliostat.spec import Spec
from heliostat.view.terminal import View


def render_launcher(spec: Spec, provider: str | None, out: Path | None, *, force: bool) -> None:
    """Writes the file for `provider`, or for the only one that the spec has, to `out`, else to PROVIDER.yaml.

    Raises ConfigError for a provider that there is not, or that the spec says nothing of, and for a file that somebody
    has edited.
    """
    chosen = chosen_provider(spec, provider)
    file = out or Path(f"{chosen}.yaml")
    assert spec.cluster.launcher is not None
    is_new = write(file, text(spec.cluster.launcher, chosen, str(file)), force=force)
    view = View()
    view.say(f"{file}: {'written' if is_new else 'as it was'}")
    view.say(f"next: ray up {file}")


def chosen_provider(spec: Spec, provider: str | None) -> str:
    """The provider that is asked for, or the one that there is; raises ConfigError where it is neither."""
    if provider is not None and provider not in PROVIDERS:
        raise ConfigError(f"--provider: {provider!r} given; {', '.join(PROVIDERS)} is allowed")
    if spec.cluster.launcher is None:
        raise ConfigError("cluster.launcher: missing; docs/clouds.md says what it holds for each provider")
    given = [name for name in PROVIDERS if getattr(spec.cluster.launcher, name) is not None]
    if provider is None and len(given) != 1:
        raise ConfigError(
            f"--provider: not given, and cluster.launcher has {', '.join(given) or 'none'}; one is needed"
        )
    return provider or given[0]
