"""The science at run time: CT slices in, perfusion maps out; knows nothing of networks, books or training."""
