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
    images = photos.images[:1]
    targets = model(images).argmax(1)
    ours = sl.METHODS["gradcam"](model, images, layer=layer).numpy()
    with GradCAM(model, [model.network.get_submodule(layer)]) as theirs:
        expected = theirs(images, [ClassifierOutputTarget(int(target)) for target in targets])
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
    with pytest.raises(ValueError, match=r"layer with features at positions 'layer5' is not known; did you mean 'layer\d'"):
        sl.METHODS["gradcam"](model, images, layer="layer5")


@pytest.mark.slow
def test_integrated_gradients_of_a_real_network_agree_with_captum(photos):
    # in float64: in float32 rounding moves some pre-activations across ReLU6's kinks, in any order of summation
    model = sl.MODELS["efficientnet_lite0"](classes=1000, pretrained=True).eval().double()
    images, targets = photos.images[:1].double(), photos.labels[:1]
    baseline = model.pixel_mean.view(1, 3, 1, 1).expand_as(images).contiguous()
    reference = captum.attr.IntegratedGradients(model)
    theirs = reference.attribute(images, baseline, int(targets[0]), n_steps=4, internal_batch_size=2, method="gausslegendre")
    ours = sl.METHODS["integrated_gradients"](model, images, targets, steps=4)
    torch.testing.assert_close(ours, theirs.sum(1), rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_the_photographs_show_what_the_network_sees(photos, lite0):
    _, predicted = sl.predict(lite0, photos.images)
    assert photos.words(predicted) == ["tiger cat", "espresso", "tripod"]


MEMORY = """
import torch, saliency_lib as sl
nn = torch.nn
model = nn.Sequential(nn.Conv2d(3, 64, 1, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
images = torch.rand(1, 3, 64, 64)
def peak():  # of this process, in KiB
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
{few}
before = peak()
{many}
print(peak() - before)
"""
WORK = {
    "occlusion": 'assert sl.METHODS["occlusion"](model, images, window=2, stride={}).shape == (1, 64, 64)',
    "curve": 'assert sl.METRICS["deletion"](model, images, images.mean(1), steps={}).values.shape[1] > 100',
}


@pytest.mark.slow
@pytest.mark.parametrize(("work", "few", "many"), [("occlusion", 2, 1), ("curve", 128, 2048)])
def test_thousands_of_steps_on_one_image_take_the_memory_of_one_batch(work, few, many):
    code = MEMORY.format(few=WORK[work].format(few), many=WORK[work].format(many))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    masks = 4000 * 64**2 * 4 / 1024  # KiB of all of them, which are never held together; the masked images are three times that
    assert int(ended.stdout) < masks / 3
