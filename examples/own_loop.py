"""HTT in an ordinary PyTorch loop: ``python examples/own_loop.py mydata --steps 200``.

One network learns all tasks from the labels that there are. After half of the steps its moving average is a teacher
that fills in the labels that are missing.
"""

import argparse

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

import tasktokens
from tasktokens.losses import total_loss
from tasktokens.methods import Htt, HttMethod, StepOptions

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", help="your images and labels, with a dataset.yaml")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--backbone", default="resnet18")
parser.add_argument("--size", type=int, nargs=2, default=(96, 128))
args = parser.parse_args()

torch.manual_seed(0)
train = tasktokens.open_dataset("folder", root=args.folder).train_dataset(
    args.size, augmentation=tasktokens.Augmentation()
)
loader = DataLoader(train, batch_size=min(8, len(train)), shuffle=True, drop_last=True, collate_fn=train.collate)
model = tasktokens.create_model("htt", train.tasks, args.backbone)
teacher = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True).eval()
method = Htt(train.tasks, HttMethod(schedule="online", stage1_steps=args.steps // 2, stage2_steps=args.steps // 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

step = epoch = 0
while step < args.steps:
    train.set_epoch(epoch)  # other zooms and crops than in the epoch before
    for batch in loader:
        options = StepOptions(step, teacher=True, photometric=0.3)
        prepared = method.prepare(batch, torch.Generator().manual_seed(step), options)
        loss = total_loss(method.terms(prepared, model.train(), teacher.module))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update_parameters(model)
        step += 1
        if step % 10 == 0 or step == args.steps:
            print(f"step {step}: loss {loss.item():.3f}")
    epoch += 1

task = train.tasks[name := next(iter(train.tasks))]
with torch.no_grad():
    logits = model.eval()(train[0].image[None])[name].logits
print(f"{name} of {train[0].id}: mean confidence {task.confidence(logits).mean():.2f}")
