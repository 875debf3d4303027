"""The messages of kubelet's plugin APIs as classes of Google's protobuf library, for tests that speak them with it."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message → "NUMBER NAME TYPE"; `*` = repeated, `map` = map<string, string>, `packed` = repeated int64
DEVICE_PLUGIN = {
    "Empty": "",
    "DevicePluginOptions": "1 pre_start_required bool, 2 get_preferred_allocation_available bool",
    "RegisterRequest": "1 version string, 2 endpoint string, 3 resource_name string, 4 options DevicePluginOptions",
    "NUMANode": "1 ID int64",
    "TopologyInfo": "1 nodes *NUMANode",
    "Device": "1 ID string, 2 health string, 3 topology TopologyInfo",
    "ListAndWatchResponse": "1 devices *Device",
    "ContainerAllocateRequest": "1 devices_ids *string",
    "AllocateRequest": "1 container_requests *ContainerAllocateRequest",
    "Mount": "1 container_path string, 2 host_path string, 3 read_only bool",
    "DeviceSpec": "1 container_path string, 2 host_path string, 3 permissions string",
    "CDIDevice": "1 name string",
    "ContainerAllocateResponse": "1 envs map, 2 mounts *Mount, 3 devices *DeviceSpec, 4 annotations map, "
    "5 cdi_devices *CDIDevice",
    "AllocateResponse": "1 container_responses *ContainerAllocateResponse",
    "PreStartContainerRequest": "1 devices_ids *string",
    "PreStartContainerResponse": "",
    "ContainerPreferredAllocationRequest": "1 available_deviceIDs *string, 2 must_include_deviceIDs *string, "
    "3 allocation_size int32",
    "PreferredAllocationRequest": "1 container_requests *ContainerPreferredAllocationRequest",
    "ContainerPreferredAllocationResponse": "1 deviceIDs *string",
    "PreferredAllocationResponse": "1 container_responses *ContainerPreferredAllocationResponse",
}
POD_RESOURCES = {
    "Empty": "",
    "NUMANode": "1 ID int64",
    "TopologyInfo": "1 nodes *NUMANode",
    "ContainerDevices": "1 resource_name string, 2 device_ids *string, 3 topology TopologyInfo",
    "ContainerMemory": "1 memory_type string, 2 size uint64, 3 topology TopologyInfo",
    "ContainerResources": "1 name string, 2 devices *ContainerDevices, 3 cpu_ids *int64, 4 memory *ContainerMemory",
    "PodResources": "1 name string, 2 namespace string, 3 containers *ContainerResources, 4 cpu_ids *int64",
    "ListPodResourcesResponse": "1 pod_resources *PodResources",
    "AllocatableResourcesResponse": "1 devices *ContainerDevices, 2 cpu_ids *int64, 3 memory *ContainerMemory",
    "GetPodResourcesRequest": "1 pod_name string, 2 pod_namespace string",
    "GetPodResourcesResponse": "1 pod_resources PodResources",
}

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _FIELD.TYPE_STRING,
    "bool": _FIELD.TYPE_BOOL,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
}


def message_classes(package: str, messages: dict[str, str]) -> dict[str, Any]:
    """Return the class of each message."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            _add(message, package, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def _add(message: Any, package: str, number: str, name: str, kind: str) -> None:
    repeated = kind.startswith("*") or kind == "map"
    label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=label)
    kind = kind.removeprefix("*")
    if kind == "map":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add(entry, package, "1", "key", "string")
        _add(entry, package, "2", "value", "string")
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{message.name}.{entry.name}"
    elif kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"
