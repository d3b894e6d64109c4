"""A cell of one's own, from its equations to training: FastGRNN (Kusupati et al. 2018, arXiv:1901.02358).

    tilesmith cells show examples/own_cell.py:FASTGRNN
    tilesmith plan examples/own_cell.py:FASTGRNN --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64
    python examples/own_cell.py        trains it: seconds on a CPU, the same on a GPU, there with kernels in bfloat16

The update gate and the candidate share one sum a = R h + Wx and differ by their biases, z and n. Gates with a bias
alone are learned numbers of each unit: these two, and the two weights of the mixture, zeta and nu.

The task is the adding problem: of 30 random numbers two are marked, and their sum is asked for. Who always answers 1
has a mean squared error of 1/6.
"""

from kernelgen.cells import Cell, Gate, sigmoid, tanh


def step(gate, state):
    update = sigmoid(gate.a + gate.z)
    candidate = tanh(gate.a + gate.n)
    weight = sigmoid(gate.zeta) * (1 - update) + sigmoid(gate.nu)
    return {"h": weight * candidate + update * state.h}


def number(name):
    return Gate(name, recurrent=False, input=False)


FASTGRNN = Cell(
    name="fastgrnn",
    title="FastGRNN",
    paper="Kusupati et al. 2018, arXiv:1901.02358",
    states=("h",),
    gates=(Gate("a", bias=False), number("z"), number("n"), number("zeta"), number("nu")),
    step=step,
)

if __name__ == "__main__":  # the commands of tilesmith stop here: they need the cell, not PyTorch
    import sys

    import torch
    from torch import nn

    from kernelgen.emit.text import backward_equations, equations
    from kernelgen.torch import rnn

    BATCH, SEQ, HEADS, HEAD_DIM = 64, 30, 4, 16
    STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

    class Adder(nn.Module):
        """[B, T, 2] to [B]: a projection of the input, the recurrence, a readout of its last h."""

        def __init__(self):
            super().__init__()
            self.project = nn.Linear(2, HEADS * HEAD_DIM)  # one gate, a, takes input
            self.r = nn.Parameter(torch.randn(1, HEADS, HEAD_DIM, HEAD_DIM) / HEAD_DIM**0.5)  # [G_rec, H, D, D]
            start = torch.tensor([1.0, 1.0, 1.0, -4.0])  # z, n, zeta, nu: the gates with a bias
            self.b = nn.Parameter(start.view(4, 1, 1).repeat(1, HEADS, HEAD_DIM))  # [G_bias, H, D]
            self.readout = nn.Linear(HEADS * HEAD_DIM, 1)

        def forward(self, x):
            wx = self.project(x).unflatten(2, (1, HEADS, HEAD_DIM))  # [B, T, G_in, H, D]
            _, last = rnn(wx, self.r, self.b, cell=FASTGRNN)  # every state [S, B, T, H, D], the last [S, B, H, D]
            return self.readout(last[0].flatten(1)).squeeze(1)

    def adding_problem():
        values, marks, rows = torch.rand(BATCH, SEQ), torch.zeros(BATCH, SEQ), torch.arange(BATCH)
        marks[rows, torch.randint(0, SEQ // 2, (BATCH,))] = 1
        marks[rows, torch.randint(SEQ // 2, SEQ, (BATCH,))] = 1
        return torch.stack([values, marks], dim=2).to(DEVICE), (values * marks).sum(1).to(DEVICE)

    print(equations(FASTGRNN), "\nderived backward step:", *backward_equations(FASTGRNN), sep="\n")

    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small are not worth a second thread
    model = Adder().to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    print(f"\ntraining on the {DEVICE}; mean squared error, over 50 steps each")
    for done in range(1, STEPS + 1):
        x, wanted = adding_problem()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):  # the fastest kernels take 16 bits
            answer = model(x)
        loss = nn.functional.mse_loss(answer.float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if done % 50 == 0:
            print(f"step {done:4}  loss {torch.stack(losses[-50:]).mean():.4f}")

    print(
        "\nOn a GPU this ran the tiling that the cost model ranks first. To measure and choose among them there:\n"
        f"tilesmith tune examples/own_cell.py:FASTGRNN --batch {BATCH} --seq {SEQ} --heads {HEADS} "
        f"--head-dim {HEAD_DIM} --direction both --gpu h200 -o tuned/fastgrnn.yaml\n"
        "export TILESMITH_CONFIGS=tuned"
    )
