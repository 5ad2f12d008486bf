from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from heliostat.infra import tracking
from heliostat.infra.errors import HeliostatError, ModelError
from heliostat.infra.registry import registry
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracked_run import start_run


def publish(storage: StorageConfig, count: int, name: str = "sentiment") -> list[ModelVersion]:
    return [
        registry.register(storage, name, f"{storage.url}/models/{name}/{number}", f"digest-{number}", "run", {})
        for number in range(1, count + 1)
    ]


def production(storage: StorageConfig) -> int:
    return registry.resolve(storage, "models:/sentiment@production").version


def test_a_registered_version_is_resolved(storage: StorageConfig) -> None:
    made = registry.register(storage, "sentiment", "s3://bucket/models/sentiment/r1", "d1", "r1", {"f1": 0.875})
    assert made.version == 1
    assert (made.url, made.digest, made.run_id) == ("s3://bucket/models/sentiment/r1", "d1", "r1")
    assert made.metrics == {"f1": 0.875}
    assert made.aliases == ()
    assert abs(datetime.now(timezone.utc) - made.created) < timedelta(minutes=1)
    assert registry.resolve(storage, "models:/sentiment/1") == made


def test_versions_count_up_and_keep_their_place(storage: StorageConfig) -> None:
    first, second = publish(storage, 2)
    assert (first.version, second.version) == (1, 2)
    assert first.url == f"{storage.url}/models/sentiment/1"
    assert registry.resolve(storage, "models:/sentiment/1") == first


def test_versions_are_found_where_their_storage_was_renamed_to(storage: StorageConfig, tmp_path: Path) -> None:
    made = publish(storage, 1)[0]
    registry.promote(storage, "sentiment", 1)
    Path(made.url).mkdir(parents=True)
    Path(storage.url).rename(tmp_path / "renamed")
    renamed = StorageConfig(url=str(tmp_path / "renamed"))
    place = str(tmp_path / "renamed" / "models" / "sentiment" / "1")
    assert registry.resolve(renamed, "models:/sentiment@production").url == place
    assert [one.url for one in registry.list_models(renamed)] == [place]


def test_a_version_with_an_absolute_place_is_found_after_a_rename_too(
    storage: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "is_inside", lambda _: False)  # as an earlier Heliostat registered it
        made = publish(storage, 1)[0]
    assert registry.resolve(storage, "models:/sentiment/1").url == made.url
    Path(storage.url).rename(tmp_path / "renamed")
    renamed = StorageConfig(url=str(tmp_path / "renamed"))
    assert registry.resolve(renamed, "models:/sentiment/1").url == str(tmp_path / "renamed/models/sentiment/1")


def test_artifacts_of_new_runs_go_where_the_storage_was_renamed_to(storage: StorageConfig, tmp_path: Path) -> None:
    with start_run(storage, "sentiment", "a", {}, {}) as run:
        run.text("x", "before.txt")
    Path(storage.url).rename(tmp_path / "renamed")
    renamed = StorageConfig(url=str(tmp_path / "renamed"))
    with start_run(renamed, "sentiment", "b", {}, {}) as run:
        run.text("x", "after.txt")
    assert not Path(storage.url).exists()
    assert {file.name for file in (tmp_path / "renamed" / "mlflow").rglob("*.txt")} == {"before.txt", "after.txt"}


def test_an_alias_moves_by_promote_only(storage: StorageConfig) -> None:
    publish(storage, 2)
    promoted = registry.promote(storage, "sentiment", 1)
    assert promoted.aliases == ("production",)
    publish(storage, 1)
    assert production(storage) == 1
    assert registry.promote(storage, "sentiment", 2).version == production(storage) == 2
    assert registry.resolve(storage, "models:/sentiment/1").aliases == ()
    registry.promote(storage, "sentiment", 1, alias="canary")
    assert registry.resolve(storage, "models:/sentiment@canary").version == 1
    assert production(storage) == 2


def test_rollback_goes_back_step_by_step(storage: StorageConfig) -> None:
    publish(storage, 3)
    for version in (1, 3, 3, 2):
        registry.promote(storage, "sentiment", version)
    assert registry.rollback(storage, "sentiment").version == production(storage) == 3
    assert registry.rollback(storage, "sentiment").version == production(storage) == 1
    with pytest.raises(ModelError, match=r"^sentiment@production: nothing to go back to before version 1$"):
        registry.rollback(storage, "sentiment")
    assert production(storage) == 1


def test_promote_after_a_rollback_goes_back_to_what_was_live(storage: StorageConfig) -> None:
    publish(storage, 3)
    for version in (1, 2):
        registry.promote(storage, "sentiment", version)
    registry.rollback(storage, "sentiment")
    registry.promote(storage, "sentiment", 3)
    assert registry.rollback(storage, "sentiment").version == 1


def test_a_move_by_other_hands_can_be_rolled_back(storage: StorageConfig) -> None:
    publish(storage, 3)
    registry.promote(storage, "sentiment", 1)
    tracking.client(storage).set_registered_model_alias("sentiment", "production", "2")
    registry.promote(storage, "sentiment", 3)
    assert registry.rollback(storage, "sentiment").version == 2
    assert registry.rollback(storage, "sentiment").version == 1


def test_every_move_is_kept(storage: StorageConfig) -> None:
    publish(storage, 2)
    for version in (1, 2):
        registry.promote(storage, "sentiment", version)
    registry.rollback(storage, "sentiment")
    moves = registry.history(storage, "sentiment")
    assert [(move["action"], move["version"]) for move in moves] == [
        ("promote", 1),
        ("promote", 2),
        ("rollback", 1),
    ]
    assert all(datetime.fromisoformat(move["at"]) <= datetime.now(timezone.utc) for move in moves)


def test_all_versions_are_listed(storage: StorageConfig) -> None:
    assert registry.list_models(storage) == []
    publish(storage, 2)
    publish(storage, 1, name="chat")
    registry.promote(storage, "sentiment", 1)
    listed = registry.list_models(storage)
    assert [(one.name, one.version, one.aliases) for one in listed] == [
        ("chat", 1, ()),
        ("sentiment", 2, ()),
        ("sentiment", 1, ("production",)),
    ]


def test_models_that_others_put_there_are_not_ours(storage: StorageConfig) -> None:
    publish(storage, 1)
    client = tracking.client(storage)
    client.create_model_version("sentiment", "s3://elsewhere/model", await_creation_for=0)
    assert [one.version for one in registry.list_models(storage)] == [1]
    with pytest.raises(ModelError, match=r"^models:/sentiment/2: not published by Heliostat"):
        registry.resolve(storage, "models:/sentiment/2")
    with pytest.raises(ModelError, match=r"^models:/sentiment/2: not published by Heliostat"):
        registry.promote(storage, "sentiment", 2)


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("models:/sentiment@prod", "no such alias; sentiment has production -> 2"),
        ("models:/sentiment/9", "no such version; sentiment has 1, 2"),
        ("models:/nobody/1", "no such model; published: sentiment"),
        ("models:/nobody@production", "no such model; published: sentiment"),
        ("models:/sentiment", "not a model; models:/name@alias or models:/name/version is needed"),
        ("sentiment@production", "not a model; models:/name@alias or models:/name/version is needed"),
        ("models:/sentiment/one", "not a model; models:/name@alias or models:/name/version is needed"),
    ],
)
def test_what_cannot_be_resolved_says_what_there_is(storage: StorageConfig, reference: str, line: str) -> None:
    publish(storage, 2)
    registry.promote(storage, "sentiment", 2)
    with pytest.raises(ModelError) as caught:
        registry.resolve(storage, reference)
    assert str(caught.value) == f"{reference}: {line}"


def test_an_impossible_move_changes_nothing(storage: StorageConfig) -> None:
    publish(storage, 1)
    registry.promote(storage, "sentiment", 1)
    with pytest.raises(ModelError, match=r"models:/sentiment/7: no such version; sentiment has 1"):
        registry.promote(storage, "sentiment", 7)
    with pytest.raises(ModelError, match="nobody: no such model; published: sentiment"):
        registry.promote(storage, "nobody", 1)
    with pytest.raises(ModelError, match="nobody: no such model; published: sentiment"):
        registry.rollback(storage, "nobody")
    with pytest.raises(ModelError, match="sentiment@canary: no such alias"):
        registry.rollback(storage, "sentiment", alias="canary")
    with pytest.raises(HeliostatError, match="v2"):
        registry.promote(storage, "sentiment", 1, alias="v2")
    assert production(storage) == 1
    assert len(registry.history(storage, "sentiment")) == 1
