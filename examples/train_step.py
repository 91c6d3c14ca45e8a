"""A whole train step as one program: forward, backward, optimizer, dropout and BatchNorm's running statistics.

python examples/train_step.py
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

import convjit


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm(16)
        self.conv2, self.dropout = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.Dropout(0.2)
        self.head = nn.Linear(32, 10)

    def __call__(self, x):
        x = nn.relu(self.norm(self.conv1(x)))
        return self.head(self.dropout(nn.relu(self.conv2(x))).mean((1, 2)))


def step_of(model, optimizer):
    """The step as one would write it for `mx.compile`, without the lists of its state."""

    def loss(x, y):
        return nn.losses.cross_entropy(model(x), y, reduction="mean")

    loss_and_gradients = nn.value_and_grad(model, loss)

    def step(x, y):
        value, gradients = loss_and_gradients(x, y)
        optimizer.update(model, gradients)
        return value

    return step


mx.random.seed(0)
model, twin = Net(), Net()
twin.update(tree_map(lambda array: mx.array(array), model.parameters()))
optimizer, twins_optimizer = (optim.SGD(0.1, momentum=0.9) for _ in range(2))
fast, plain = convjit.compile(step_of(model, optimizer)), step_of(twin, twins_optimizer)
x, y = mx.random.normal((16, 16, 16, 3)), mx.random.randint(0, 10, (16,))

for step, module in ((plain, twin), (fast, model)):
    mx.random.seed(1)  # the same dropout: compiled or not, the same seed draws the same numbers
    for _ in range(5):
        value = step(x, y)
        mx.eval(value, module.state)
    print(f"loss after 5 steps: {value.item():.5f}")

print(convjit.inspect.explain(fast))
weights, expected = model.conv1.weight, twin.conv1.weight
print(f"largest difference between the weights: {mx.abs(weights - expected).max().item():.1e}")
difference = mx.abs(model.norm.running_mean - twin.norm.running_mean).max().item()
print(f"largest difference between the running means: {difference:.1e}")
