"""Methods of transformers: the weights are torch's own, and the maps are those of the papers' formulas, computed elsewhere."""

import pytest
import torch
import torchvision
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.attention import Steps, reading
from saliency_lib.attribution.attention_relevance import Relevance

FOLLOWED = ("attention", "attention_rollout", "gradient_rollout")


def small_vit(side=32, classes=5):
    """Torchvision's vision transformer with 2 layers of 2 heads and 4x4 patches, and a head that is not 0."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(side, side // 4, 2, 2, 16, 32, num_classes=classes)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


def timm_vit(**options):
    """Timm's vision transformer of the same size."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = dict(img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=5)
    model = timm.models.vision_transformer.VisionTransformer(**sizes | options).eval()
    nn.init.normal_(model.head.weight)
    return model


def networks():
    return {
        "torchvision": (small_vit(), torch.rand(3, 3, 32, 32)),
        "timm": (timm_vit(), torch.rand(3, 3, 32, 32)),
        "ours": (sl.MODELS["cifar_vit"]().eval(), torch.rand(3, 3, 32, 32)),
        "causal": (sl.MODELS["transformer"](3, features=10).eval(), torch.rand(3, 1, 12, 10)),
    }


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("steps", [Steps, Relevance])
def test_attention_in_steps_gives_the_same_logits(name, steps):
    model, images = networks()[name]
    expected = model(images).detach()
    with steps() if steps is Steps else steps(model):
        found = model(images.requires_grad_()).detach()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_the_weights_are_those_that_torch_returns():
    model, images = small_vit(), torch.rand(2, 3, 32, 32)
    kept = []
    handles = [
        block.self_attention.register_forward_pre_hook(lambda module, inputs: kept.append((module, inputs)))
        for block in model.encoder.layers
    ]
    with reading(model) as found:
        model(images)
    for handle in handles:
        handle.remove()
    assert len(found) == len(kept) == 2
    for ours, (module, inputs) in zip(found, kept, strict=True):
        torch.testing.assert_close(ours.weights, module(*inputs, need_weights=True, average_attn_weights=False)[1])


def flow_by_hooks(model, images, targets):
    """The attention of timm's blocks and its gradient, by hooks on the modules behind its softmax."""
    kept = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = model(images.clone().requires_grad_()).gather(1, targets[:, None]).sum()
    return kept, torch.autograd.grad(score, kept)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("method", FOLLOWED)
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_maps_are_those_of_the_formulas_from_weights_that_hooks_collect(method, fused, pool):
    model, images, targets = timm_vit(global_pool=pool), torch.rand(3, 3, 32, 32), torch.tensor([0, 4, 2])
    weights, slopes = flow_by_hooks(model, images, targets)
    eye = torch.eye(17)
    rolled, received = eye, eye
    for one, slope in zip(weights, slopes, strict=True):
        rolled = (0.5 * one.mean(1) + 0.5 * eye) @ rolled
        received = received + (slope * one).clamp(min=0).mean(1) @ received
    read = {"attention": weights[-1].mean(1), "attention_rollout": rolled, "gradient_rollout": received}[method]
    tokens = read[:, 0] if pool == "token" else read[:, 1:].mean(1)
    expected = nn.functional.interpolate(tokens[:, 1:].view(3, 1, 4, 4), (32, 32), mode="bilinear")[:, 0].detach()
    for block in model.blocks:
        block.attn.fused_attn = fused
    torch.testing.assert_close(sl.METHODS[method](model, images, targets), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", (*FOLLOWED, "attn_lrp"))
def test_a_map_does_not_depend_on_the_batch(method):
    model, images = sl.MODELS["cifar_vit"]().eval(), torch.rand(5, 3, 32, 32)
    whole = sl.METHODS[method](model, images)
    assert whole.shape == (5, 32, 32) and whole.std() > 0
    torch.testing.assert_close(sl.METHODS[method](model, images, batch_size=2), whole, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(sl.METHODS[method](model, images.flip(0)).flip(0), whole, atol=1e-6, rtol=1e-4)


class Layer(nn.Module):
    """Two tokens of width 3, a norm, attention of one head with torch's function, a GELU, and a head without a bias."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(6, 2, bias=False)
        self.query, self.key, self.value, self.after = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, images):
        tokens = images[:, :, 0].mT  # (B, 2, 3): the channels of two pixels
        inner = self.norm(tokens)
        seen = nn.functional.scaled_dot_product_attention(self.query(inner), self.key(inner), self.value(inner))
        return self.head(nn.functional.gelu(tokens + self.after(seen)).flatten(1))


def through_linear(relevance, inputs, layer):
    """R_i = sum over outputs j of x_i w_ji / z_j R_j."""
    outputs = layer(inputs)
    return (inputs[..., None, :] * layer.weight / outputs[..., None] * relevance[..., None]).sum(-2)


def relevance_by_hand(model, image, target):
    """Relevance of the channels of two tokens (2, 3), passed back by the rules of the paper, one after the other."""
    with torch.no_grad():
        tokens = image[:, 0].mT
        inner = model.norm(tokens)
        query, key, value = model.query(inner), model.key(inner), model.value(inner)
        scores = query @ key.T / 3**0.5
        weights = scores.softmax(1)
        seen = weights @ value
        after = model.after(seen)
        active = nn.functional.gelu(tokens + after)
        relevance = active * model.head.weight[target].view(2, 3)  # of the head, whose output is the sum of these
        # the GELU passes its relevance on; the sum before it distributes it in proportion
        by_tokens, by_after = relevance * tokens / (tokens + after), relevance * after / (tokens + after)
        by_seen = through_linear(by_after, seen, model.after)
        by_value, by_weights = torch.zeros(2, 3), torch.zeros(2, 2)
        for i in range(2):
            for j in range(2):
                for p in range(3):
                    share = weights[i, j] * value[j, p] / (2 * seen[i, p]) * by_seen[i, p]
                    by_value[j, p] += share
                    by_weights[i, j] += share
        by_scores = scores * (by_weights - weights * by_weights.sum(1, keepdim=True))  # the softmax
        by_query, by_key = torch.zeros(2, 3), torch.zeros(2, 3)
        for i in range(2):
            for j in range(2):
                for p in range(3):
                    share = query[i, p] * key[j, p] / (2 * scores[i, j] * 3**0.5) * by_scores[i, j]
                    by_query[i, p] += share
                    by_key[j, p] += share
        parts = ((by_query, model.query), (by_key, model.key), (by_value, model.value))
        by_inner = sum(through_linear(one, inner, layer) for one, layer in parts)
        # the norm: x - mean distributes in proportion over x, and its scale takes nothing
        spread = tokens.var(1, correction=0, keepdim=True).add(model.norm.eps).sqrt()
        unscaled = by_inner * (tokens - tokens.mean(1, keepdim=True)) / spread * model.norm.weight / inner
        ratios = unscaled / (tokens - tokens.mean(1, keepdim=True))
        by_norm = tokens * (ratios - ratios.mean(1, keepdim=True))
        return by_tokens + by_norm


def test_relevance_of_two_tokens_by_hand():
    torch.manual_seed(1)
    model, images = Layer(), torch.rand(2, 3, 1, 2)
    nn.init.normal_(model.norm.weight), nn.init.normal_(model.norm.bias)
    found = sl.METHODS["attn_lrp"](model, images, torch.tensor([1, 0]))
    for row, target in enumerate((1, 0)):
        expected = relevance_by_hand(model, images[row], target).sum(1)
        torch.testing.assert_close(found[row, 0], expected, atol=1e-4, rtol=1e-3)


def test_products_share_relevance_and_keep_its_sum():
    """Without a softmax, biases and norms nothing is lost: the relevances add up to the score."""

    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.third = (nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, images):
            tokens = images.flatten(2).mT
            product = self.left(tokens) @ self.right(tokens).mT @ self.third(tokens)
            nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)  # unused, so that the model has attention
            return (product * nn.functional.silu(tokens)).mean(1)

    model, images, targets = Products(), torch.rand(3, 4, 2, 2), torch.tensor([0, 1, 2])
    found = sl.METHODS["attn_lrp"](model, images, targets).sum((1, 2))
    torch.testing.assert_close(found, model(images).gather(1, targets[:, None])[:, 0].detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", FOLLOWED)
def test_attention_within_windows_is_refused(method):
    model = torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2], num_classes=3).eval()
    with pytest.raises(ValueError, match=r"within windows.*\(32, 1, 4, 4\), \(8, 2, 4, 4\).*use gradcam"):
        sl.METHODS[method](model, torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("method", (*FOLLOWED, "attn_lrp"))
def test_a_network_without_attention_is_refused(method):
    with pytest.raises(ValueError, match="no attention between tokens"):
        sl.METHODS[method](sl.MODELS["cnn"](), torch.rand(2, 3, 28, 28))


def test_tokens_without_positions_are_refused():
    class Bag(nn.Module):
        def forward(self, images):
            tokens = images.flatten(2).mT[:, :7]
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(1)

    with pytest.raises(ValueError, match="the 7 tokens that attend to each other are not the positions of a layer"):
        sl.METHODS["attention"](Bag(), torch.rand(2, 3, 4, 4))


def test_a_padding_mask_is_refused():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixing = nn.MultiheadAttention(3, 1, batch_first=True)

        def forward(self, images):
            tokens = images.flatten(2).mT
            hidden = torch.zeros(len(tokens), tokens.shape[1], dtype=torch.bool)
            return self.mixing(tokens, tokens, tokens, key_padding_mask=hidden)[0].mean(1)

    with pytest.raises(ValueError, match="padding mask or other options"):
        sl.METHODS["attention"](Masked(), torch.rand(2, 3, 4, 4))
