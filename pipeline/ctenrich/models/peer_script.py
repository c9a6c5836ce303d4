"""Segment one NIfTI file with a peer's own package; run by the Python of an environment that has that package.

``PYTHON -I peer_script.py REQUEST.json``: only the standard library and the peer are imported, ctenrich is not. The
request names the package and its options, the input and the file to write; the last line on standard output is JSON
with the package's version and the seconds that it took, its imports included.
"""

import json
import os
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any


def _segment_by_nnunetv2(request: dict[str, Any]) -> None:
    """nnunetv2's predictor on a model folder; the file is read as it is, in the axes in which it was written."""
    torch = import_module("torch")
    predict = import_module("nnunetv2.inference.predict_from_raw_data")
    reader = import_module("nnunetv2.imageio.simpleitk_reader_writer").SimpleITKIO()
    device = torch.device(request["device"])
    predictor = predict.nnUNetPredictor(
        tile_step_size=request["step"],
        use_gaussian=True,
        use_mirroring=request["mirror"],
        perform_everything_on_device=device.type == "cuda",
        device=device,
        verbose=False,
        allow_tqdm=False,
    )
    if not _finds_trainers():
        trainer = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer").nnUNetTrainer
        for search in ("recursive_find_trainer_class_by_name", "recursive_find_python_class"):
            if hasattr(predict, search):
                setattr(predict, search, lambda *_: trainer)
    predictor.initialize_from_trained_model_folder(request["model"], tuple(request["folds"]), request["checkpoint"])
    image, properties = reader.read_images([request["image"]])
    labels = predictor.predict_single_npy_array(image, properties)
    reader.write_seg(labels, request["answer"], properties)


def _finds_trainers() -> bool:
    """Whether nnunetv2's search for a trainer works: it imports all trainers, one of which needs a working timm."""
    try:
        import_module("timm")
    except (ImportError, RuntimeError, AttributeError):
        return False
    return True


def _prepare_totalsegmentator(request: dict[str, Any], series: str) -> None:
    """Set TotalSegmentator's folders, and its network access and its statistics off; refuse another version."""
    installed = version("TotalSegmentator")
    if not installed.startswith(f"{series}."):
        sys.exit(f"this environment has TotalSegmentator {installed}, the answer to compare with is that of {series}.x")
    home = Path(request["home"]) / ".totalsegmentator"
    home.mkdir(parents=True, exist_ok=True)
    settings = {"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0}
    (home / "config.json").write_text(json.dumps(settings))
    os.environ["HOME"] = request["home"]  # the only place that version 1 looks into
    os.environ["TOTALSEG_HOME_DIR"] = str(home)
    os.environ["TOTALSEG_WEIGHTS_PATH"] = str(_link_weights(request))
    requests: Any = import_module("requests")
    requests.get = requests.post = _refuse_network


def _link_weights(request: dict[str, Any]) -> Path:
    """A folder with links to the weights alone: the package deletes weights of other versions from its own folder."""
    folder = Path(request["home"]) / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    for place, source in request["weights"].items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(source)
    return folder


def _segment_by_totalsegmentator_1(request: dict[str, Any]) -> None:
    """TotalSegmentator 1's Python interface; its nnU-Net reads weights with a torch that still allowed every pickle."""
    _prepare_totalsegmentator(request, "1")
    torch: Any = import_module("torch")
    nibabel: Any = import_module("nibabel")
    plain = torch.load
    torch.load = lambda *given, **options: plain(*given, **{"weights_only": False, **options})
    for name in ("RESULTS_FOLDER", "nnUNet_raw_data_base", "nnUNet_preprocessed"):
        os.environ[name] = os.environ["TOTALSEG_WEIGHTS_PATH"]
    options = {"ml": True, "nr_thr_saving": 1, "quiet": True, **request["options"]}
    segment: Any = import_module("totalsegmentator.python_api").totalsegmentator
    nibabel.save(segment(request["image"], request["answer"], **options), request["answer"])


def _segment_by_totalsegmentator(request: dict[str, Any]) -> None:
    """TotalSegmentator 2's Python interface."""
    _prepare_totalsegmentator(request, "2")
    if not _finds_trainers():
        trainer = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer").nnUNetTrainer
        variants = "nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring"
        plain = import_module(variants).nnUNetTrainerNoMirroring
        known = {"nnUNetTrainer": trainer, "nnUNetTrainerNoMirroring": plain}
        known["nnUNetTrainer_4000epochs_NoMirroring"] = plain
        import_module("totalsegmentator.nnunet").custom_trainers.update(known)
    options = {"ml": True, "nr_thr_saving": 1, "quiet": True, **request["options"]}
    import_module("totalsegmentator.python_api").totalsegmentator(request["image"], request["answer"], **options)


def _segment_by_moosez(request: dict[str, Any]) -> None:
    """MOOSE's own function, on links to the weights; the image is in double precision, as dicom2nifti writes it."""
    requests: Any = import_module("requests")
    requests.get = requests.post = _refuse_network
    moosez: Any = import_module("moosez.moosez")
    models: Any = import_module("moosez.models")
    system: Any = import_module("moosez.system")
    nibabel, numpy = import_module("nibabel"), import_module("numpy")
    moosez.add_custom_trainers_to_local_nnunetv2 = lambda: None  # it writes into the folder of nnunetv2
    home = Path(request["home"])
    for name, (folder, source) in request["weights"].items():
        place = home / "models" / folder
        place.mkdir(parents=True)
        for plans in Path(source).rglob("plans.json"):
            (place / plans.parent.name).symlink_to(plans.parent)
        (place / "model_version.json").write_text(json.dumps({"url": models.MODEL_METADATA[name]["url"]}))
    system.MODELS_DIRECTORY_PATH = str(home / "models")
    models.Model.__init__.__defaults__ = (str(home / "models"),)
    image, out = nibabel.load(request["image"]), home / "out"
    out.mkdir()
    values = numpy.asarray(image.dataobj).astype(numpy.float64)
    nibabel.save(nibabel.Nifti1Image(values, image.affine), home / "CT_image.nii.gz")
    moosez.moose(str(home / "CT_image.nii.gz"), request["model"], str(out), request["device"])
    made = sorted(out.rglob("*.nii.gz"))
    labels = nibabel.load(made[0]) if made else nibabel.Nifti1Image(numpy.zeros(image.shape, "uint8"), image.affine)
    ends = [nibabel.io_orientation(one.affine) for one in (labels, image)]
    nibabel.save(labels.as_reoriented(nibabel.orientations.ornt_transform(*ends)), request["answer"])


def _segment_by_lungmask(request: dict[str, Any]) -> None:
    """Lungmask's LMInferer with the given files of weights; the second one fills the answer of the first."""
    sitk: Any = import_module("SimpleITK")
    models, files = [*request["models"], None], [*request["files"], None]
    inferer = import_module("lungmask.mask").LMInferer(
        modelname=models[0],
        modelpath=files[0],
        fillmodel=models[1],
        fillmodel_path=files[1],
        force_cpu=request["cpu"],
        tqdm_disable=True,
    )
    image = sitk.ReadImage(request["image"])
    labels = sitk.GetImageFromArray(inferer.apply(image))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, request["answer"])


def _segment_by_monai(request: dict[str, Any]) -> None:
    """The transforms, network and inferer that MONAI makes from a bundle's configuration."""
    torch, nibabel = import_module("torch"), import_module("nibabel")
    parser: Any = import_module("monai.bundle").ConfigParser()
    bundle, device = Path(request["bundle"]), torch.device(request["device"])
    parser.read_config(bundle / "configs" / "inference.json")
    parser["bundle_root"] = str(bundle)
    if request["resolution"]:
        parser["displayable_configs#highres"] = request["resolution"] == "highres"
    parser["device"] = parser["inferer#device"] = device
    steps = parser["postprocessing"]["transforms"]
    parser["postprocessing"]["transforms"] = [step for step in steps if step["_target_"] != "SaveImaged"]
    network = parser.get_parsed_content("network_def").to(device).eval()
    weights = torch.load(
        parser.get_parsed_content("checkpointloader#load_path"), map_location=device, weights_only=True
    )
    network.load_state_dict(weights.get("model", weights))
    data = parser.get_parsed_content("preprocessing")({"image": request["image"]})
    with torch.inference_mode():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None].to(device), network)[0]
    labels = parser.get_parsed_content("postprocessing")(data)["pred"][0].cpu().numpy()
    nibabel.save(nibabel.Nifti1Image(labels.astype("int16"), nibabel.load(request["image"]).affine), request["answer"])


def _refuse_network(*_: Any, **__: Any) -> None:
    raise RuntimeError("a comparison uses no network")


_PEERS = {
    "nnunetv2": ("nnunetv2", _segment_by_nnunetv2),
    "TotalSegmentator": ("TotalSegmentator", _segment_by_totalsegmentator),
    "TotalSegmentator 1": ("TotalSegmentator", _segment_by_totalsegmentator_1),
    "moosez": ("moosez", _segment_by_moosez),
    "lungmask": ("lungmask", _segment_by_lungmask),
    "monai": ("monai", _segment_by_monai),
}


def _main() -> None:
    start = time.perf_counter()
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    package, segment = _PEERS[request["package"]]
    output, sys.stdout = sys.stdout, sys.stderr  # what the peer prints is no answer
    segment(request)
    answer = {"version": version(package), "seconds": time.perf_counter() - start}
    print(json.dumps(answer), file=output)


if __name__ == "__main__":
    _main()
