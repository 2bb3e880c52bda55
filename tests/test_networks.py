"""On real networks: Grad-CAM and integrated gradients against their reference libraries, memory, the photographs."""

import subprocess
import sys

import captum.attr
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import saliency_lib as sl


@pytest.fixture(scope="module")
def photos():
    return sl.DATASETS["photos"](stop=3)


@pytest.fixture(scope="module")
def lite0():
    return sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval()


def scaled(maps: np.ndarray) -> np.ndarray:
    """Each map from 0 to 1, as grad-cam shows it."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low + 1e-7)


@pytest.mark.parametrize(
    ("name", "layer"), [("efficientnet_lite0", "_bn1"), ("resnet18", "layer4"), ("resnet18", "layer3.1.conv2")]
)
def test_gradcam_agrees_with_pytorch_grad_cam(name, layer, photos, lite0):
    torch.manual_seed(0)
    model = lite0 if name == "efficientnet_lite0" else sl.MODELS[name](classes=20).eval()
    targets = model(photos.images).argmax(1)
    ours = sl.METHODS["gradcam"](model, photos.images, layer=layer).numpy()
    with GradCAM(model, [model.network.get_submodule(layer)]) as theirs:
        expected = theirs(photos.images, [ClassifierOutputTarget(int(target)) for target in targets])
    assert ours.max() > 0
    # theirs scales to [0, 1] and enlarges with OpenCV, whose bilinear weights are fixed-point
    np.testing.assert_allclose(scaled(ours), scaled(expected), atol=2e-3)
    assert np.corrcoef(scaled(ours).ravel(), scaled(expected).ravel())[0, 1] > 0.99999


def test_the_default_layer_of_a_resnet_is_its_last_stage_and_of_small_images_one_with_positions():
    torch.manual_seed(0)
    model, images = sl.MODELS["resnet18"](classes=5), torch.rand(1, 3, 224, 224)
    by_default = sl.METHODS["gradcam"](model, images)
    torch.testing.assert_close(by_default, sl.METHODS["gradcam"](model, images, layer="layer4"))
    small = images[..., :32, :32]
    torch.testing.assert_close(sl.METHODS["gradcam"](model, small), sl.METHODS["gradcam"](model, small, layer="layer2"))
    with pytest.raises(ValueError, match=r"layer with a spatial output 'layer5' is not known; did you mean 'layer\d'"):
        sl.METHODS["gradcam"](model, images, layer="layer5")


def test_integrated_gradients_of_a_real_network_agree_with_captum(photos):
    # in float64: in float32 rounding moves some pre-activations across ReLU6's kinks, in any order of summation
    model = sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval().double()
    images, targets = photos.images[:1].double(), photos.labels[:1]
    baseline = model.pixel_mean.view(1, 3, 1, 1).expand_as(images).contiguous()
    reference = captum.attr.IntegratedGradients(model)
    theirs = reference.attribute(images, baseline, int(targets[0]), n_steps=10, internal_batch_size=5, method="gausslegendre")
    ours = sl.METHODS["integrated_gradients"](model, images, targets, steps=10)
    torch.testing.assert_close(ours, theirs.sum(1), rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_the_photographs_show_what_the_network_sees(photos, lite0):
    _, predicted = sl.predict(lite0, photos.images)
    assert photos.words(predicted) == ["tiger cat", "espresso", "tripod"]


MEMORY = """
import torch, saliency_lib as sl
model = sl.MODELS["resnet18"](classes=10, channels=3)
model.network.layer2 = model.network.layer3 = model.network.layer4 = torch.nn.Identity()  # wide activations, little time
model.network.fc = torch.nn.Linear(64, 10)
model.network.conv1.stride = (4, 4)
images = torch.rand(1, 3, 224, 224)
{work}
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))  # peak of this process, KiB
"""
WORK = {
    "occlusion": 'maps = sl.METHODS["occlusion"](model, images, window=46, stride=2); assert maps.shape == (1, 224, 224)',
    "curve": 'curve = sl.METRICS["deletion"](model, images, images.mean(1), steps=8000); assert curve.values.shape[1] > 7000',
}


@pytest.mark.parametrize("work", WORK)
def test_eight_thousand_steps_on_one_image_stay_under_two_gibibytes(work):
    code = MEMORY.format(work=WORK[work])
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 2 * 1024**2
