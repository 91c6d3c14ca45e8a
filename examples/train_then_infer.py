"""Training stays plain MLX; the compiled model sees every new weight, and evaluates between epochs.

python examples/train_then_infer.py
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

import convjit


class Net(nn.Module):
    """Tells whether the bright stripe of a small image lies flat or stands up."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm(8)
        self.head = nn.Linear(8, 2)

    def __call__(self, x):
        return self.head(nn.relu(self.norm(self.conv(x))).mean((1, 2)))


def stripes(count, key):
    """Images (count, 8, 8, 1) with noise, and labels."""
    keys = mx.random.split(mx.random.key(key), 3)
    labels, places = mx.random.randint(0, 2, (count,), key=keys[0]), mx.random.randint(0, 8, (count, 1), key=keys[1])
    line = (mx.arange(8) == places).astype(mx.float32)
    flat, upright = line[:, :, None], line[:, None, :]
    images = mx.where(labels[:, None, None] == 0, flat, upright)[..., None]
    return images + 0.3 * mx.random.normal(images.shape, key=keys[2]), labels


def loss(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


mx.random.seed(0)
model, optimizer = Net(), optim.Adam(0.02)
fast = convjit.compile(model)  # the same weights: nothing is copied
step = nn.value_and_grad(model, loss)
test_images, test_labels = stripes(200, key=999)

for epoch in range(5):
    model.train()
    for batch in range(10):
        value, gradients = step(model, *stripes(64, key=10 * epoch + batch))
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
    model.eval()  # BatchNorm's running averages from here on: another program, kept beside the one for training
    accuracy = (fast(test_images).argmax(1) == test_labels).astype(mx.float32).mean().item()
    print(f"epoch {epoch}: loss {value.item():.3f}, accuracy of the compiled model {accuracy:.1%}")

difference = mx.abs(fast(test_images) - model(test_images)).max().item()
print(f"largest difference from plain MLX: {difference:.1e}")
