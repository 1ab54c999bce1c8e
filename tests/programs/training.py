"""What a training in PyTorch does beside arithmetic: data loaders in processes of their own, shared tensors by each
strategy, processes that talk to one another, files, the profiler."""

import os
import socket

import torch
import torch.distributed
import torch.multiprocessing
from torch.utils.data import DataLoader, TensorDataset


def add_one(queue, tensor):
    tensor.add_(1)
    queue.put(tensor.sum().item())


def reduce(rank, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    tensor = torch.ones(4) * rank
    torch.distributed.all_reduce(tensor)
    assert tensor.tolist() == [1.0] * 4
    torch.distributed.destroy_process_group()


def main():
    x = torch.randn(512, 32)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for strategy in sorted(torch.multiprocessing.get_all_sharing_strategies()):
        torch.multiprocessing.set_sharing_strategy(strategy)
        for inputs, labels in DataLoader(data, 64, shuffle=True, num_workers=2):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
        context = torch.multiprocessing.get_context("spawn")
        queue, tensor = context.Queue(), torch.zeros(10).share_memory_()
        child = context.Process(target=add_one, args=(queue, tensor))
        child.start()
        assert queue.get(timeout=120) == 10 and tensor.sum().item() == 10
        child.join()
        print(strategy)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(reduce, args=(port,), nprocs=2)
    print("gloo")

    torch.save(model.state_dict(), "/work/model.pt")
    model.load_state_dict(torch.load("/work/model.pt"))
    with torch.profiler.profile() as profile:
        model(x)
    assert len(profile.events()) > 0
    print("files")


if __name__ == "__main__":
    main()
