"""An encoder as a model that MLflow loads: recordings in, features out, exactly as `protocols` extract them.

    model = mlflow.pyfunc.load_model("models:/skelbench-slim-nwucla@slim-xsub-seed0")
    features = model.predict(joints)  # float32 (clip, person, time, joint, 3) -> (clip, channels)

Its folder holds the encoder (safetensors, nothing pickled) and an `MLmodel` that names this file as its loader, so it
needs an installed SkelBench. Another pooling: `load_model(uri, model_config={"pooling": "mean"})`.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float32

from methods.checkpoint import load_encoder, told_with
from methods.encoder import Encoder
from methods.persons import parse_pooling
from protocols.features import extract
from skeletons.clips import open_store, write_store
from skeletons.errors import BadInput
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.streams import JOINT
from skeletons.topology import Topology

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENCODER = "encoder.safetensors"


class FeatureModel:
    """What `mlflow.pyfunc.load_model` calls.

    Args:
        encoder: in eval mode.
        stream: of the coordinates that it was trained on; recordings are given as joints whatever it is.
        pooling: of its features.
        test_crop: share of a clip, centred, that is looked at.
    """

    def __init__(self, encoder: Encoder, stream: str, pooling: str, test_crop: float):
        parse_pooling(pooling)
        self.encoder, self.stream, self.pooling = encoder, stream, pooling
        self.views = ViewConfig(frames=encoder.frames, test_crop=test_crop)

    def predict(self, model_input: Any) -> Float32[np.ndarray, "clip channel"]:
        """Features of recordings.

        Args:
            model_input: float (clip, person, time, joint, 3), metres, y up, joints in the encoder's order. A joint that
                was not seen, or a person who is absent, is zeros or NaN; frames at the end that are all NaN are beyond
                the end of a shorter clip.

        Raises:
            BadInput: another shape, infinite numbers, or a clip that shows nobody.
        """
        arrays = recordings(np.asarray(model_input, np.float32), self.encoder.topology)
        with tempfile.TemporaryDirectory() as folder:  # the one way in: gaps are filled and clips centred as everywhere
            write_store(Path(folder) / "clips", arrays, self.encoder.topology, {"name": "given", "source": "given"})
            clips = replace(open_store(Path(folder) / "clips"), stream=self.stream)
            store = ClipTensors(clips, next(self.encoder.parameters()).device)
            rows = torch.arange(len(store))
            return extract(self.encoder, store, rows, self.views, self.pooling).numpy()


def recordings(joints: np.ndarray, topology: Topology) -> dict[str, np.ndarray]:
    """Arrays of the exchange format.

    Args:
        joints: float32 (clip, person, time, joint, 3), see `FeatureModel.predict`.

    Raises:
        BadInput: they cannot be used.
    """
    wanted = f"(clip, person, time, {len(topology)}, 3)"
    if joints.ndim != 5 or joints.shape[3:] != (len(topology), 3) or 0 in joints.shape:
        raise BadInput(f"recordings of shape {joints.shape}: this encoder takes {wanted}, joints {topology.joints}")
    if np.isinf(joints).any():
        raise BadInput(f"clip {np.isinf(joints).any((1, 2, 3, 4)).argmax()} has infinite coordinates; give metres")
    missing = np.isnan(joints).any(-1, keepdims=True)
    nobody = (missing | (joints == 0)).all((1, 2, 3, 4))
    if nobody.any():
        raise BadInput(f"clip {nobody.argmax()} shows nobody, all zeros or NaN; leave it out")
    there = ~np.isnan(joints).all((1, 3, 4))  # (clip, time)
    lengths = joints.shape[2] - there[:, ::-1].argmax(1)
    whole = np.where(missing, np.float32(0), joints).transpose(0, 2, 1, 3, 4)
    return {
        "joints": np.concatenate([clip[:n] for clip, n in zip(whole, lengths)]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "label": np.zeros(len(joints), np.int64),
        "clip": np.array([str(i) for i in range(len(joints))]),
        "class_names": np.array(["unknown"]),
        "joint_names": np.array(topology.joints),
        "parents": np.array(topology.parents),
    }


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> FeatureModel:
    """MLflow's entry: the model whose encoder lies at `path`."""
    settings = {"pooling": "mean", "test_crop": ViewConfig().test_crop, **(model_config or {})}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    file = Path(path)
    stream = told_with(file).get("stream", JOINT)
    return FeatureModel(load_encoder(file, device), stream, settings["pooling"], settings["test_crop"])


def save_model(encoder: Path, folder: Path, pooling: str, test_crop: float) -> None:
    """Write an encoder as a model that MLflow loads.

    Args:
        encoder: file that `methods.checkpoint.save_encoder` wrote.
        folder: new.
        pooling: of the features it gives.
        test_crop: see `FeatureModel`.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    known = load_encoder(encoder)
    joints = TensorSpec(np.dtype("float32"), (-1, -1, -1, len(known.topology), 3))
    features = TensorSpec(np.dtype("float32"), (-1, -1))
    model = Model(signature=ModelSignature(Schema([joints]), Schema([features])))
    settings = {"pooling": pooling, "test_crop": test_crop}
    # As `mlflow.pyfunc.add_to_model` does, whose module takes a second to import.
    version = platform.python_version()
    model.add_flavor("python_function", loader_module=__name__, data=ENCODER, config=settings, python_version=version)
    folder.mkdir(parents=True)
    shutil.copyfile(encoder, folder / ENCODER)
    model.save(str(folder / "MLmodel"))
    torch_version = torch.__version__.partition("+")[0]
    (folder / "requirements.txt").write_text(f"torch=={torch_version}\nnumpy\nsafetensors\n")


def register(client: MlflowClient, run: str, name: str, alias: str, tags: dict[str, str]) -> None:
    """Register the model that a run has among its artifacts, unless its encoder is registered already.

    Args:
        name: of the registered model; its versions are encoders.
        alias: by which the version can be loaded; an earlier one of this alias loses it.
        tags: of the version; `identity` says which encoder it is.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    same = client.search_model_versions(f"name = '{name}' and tags.identity = '{tags['identity']}'")
    if same:
        version = same[0]
    else:
        own = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
        version = client.create_model_version(name, f"runs:/{run}/model", run, own)
    client.set_registered_model_alias(name, re.sub(r"[^\w-]+", "-", alias, flags=re.ASCII)[:255], version.version)
