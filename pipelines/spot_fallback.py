"""Which node Ray's autoscaler starts: spot, and on demand for half an hour after a spot node could not be had.

By itself Ray's autoscaler notes which types of node the cloud refused, and asks for them again. cluster.yaml
has it call this instead, by RAY_AUTOSCALER_UTILIZATION_SCORER. Only the autoscaler's first version does
(RAY_UP_enable_autoscaler_v2=0). Among types that serve equally well it takes the last by name: "gpu_spot" before
"gpu_on_demand".
"""

from typing import Any


def score(node_resources: dict[str, Any], resources: list[dict[str, Any]], node_type: str, **more: Any) -> Any:
    """Ray's own score of a type of node (greater is better, None: nothing fits), type by type that can be had first.

    Args:
        node_resources: of one node of the type.
        resources: what tasks and actors ask for.
        more: what Ray noted of the types lately, as `node_availability_summary`.
    """
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

    own = _default_utilization_scorer(node_resources, resources, node_type, **more)
    if own is None:
        return None
    noted = more["node_availability_summary"].node_availabilities.get(node_type)
    no_gpu_in_vain, *rest = own  # still the first: no GPU node in place of a CPU node that cannot be had
    return (no_gpu_in_vain, noted is None or noted.is_available, *rest)
