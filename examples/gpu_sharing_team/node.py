"""A team's GPU: each member has a quota, and one trains at a time."""

import time

from easyremote import ComputeNode


def train_with_quota_management(user_id, model_config, dataset):
    began = time.time()
    total = 0
    for step in range(model_config["steps"]):
        total += sum(value * step for value in dataset)
    return {"user": user_id, "total": total, "began": began, "ended": time.time()}


# Team lead sets up shared GPU node
gpu_node = ComputeNode("team-gateway:8080", "team-gpu-01")

@gpu_node.register(quota_per_user="2_hours_daily")
def train_team_model(user_id, model_config, dataset):
    """Shared GPU training with fair usage quotas"""
    return train_with_quota_management(user_id, model_config, dataset)

@gpu_node.register(quota_per_user="2_calls_daily", access_level="team")
def render_preview(size):
    """A second function of the node, with a quota that is soon used up"""
    return size * size

gpu_node.serve()
