"""Process group, collectives, sharded tensors and SyncBatchNorm."""
