"""A gRPC client that knows nothing of this project but a socket: it learns the messages by reflection, starts a run, watches
it twice, fetches an artifact and releases the run. Prints one JSON object; any surprise is a non-zero exit."""

import hashlib
import json
import sys
import uuid

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "autoresearch.worker.v1.WorkerService"
PROGRAM = b"""
import autoresearch as ar
for step in range(300):
    ar.log(step=step, loss=1.0 / (step + 1))
    print("line", step)
open("result.txt", "w").write("hello from the sandbox\\n")
ar.save("result.txt")
"""


def uuid7():
    import os, time
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def main(socket):
    channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName(SERVICE)

    def message(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"autoresearch.worker.v1.{name}"))

    def call(name):
        method = service.methods_by_name[name]
        kinds = {(False, False): channel.unary_unary, (False, True): channel.unary_stream, (True, False): channel.stream_unary}
        make = kinds[method.client_streaming, method.server_streaming]
        return make(
            f"/{SERVICE}/{name}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )

    worker = call("GetWorker")(message("GetWorkerRequest")())
    assert worker.protocol_min <= 1 <= worker.protocol_max, worker
    for reply in call("PrepareImage")(message("PrepareImageRequest")(name="lite")):
        pass
    assert reply.image.image_id.startswith("sha256:"), reply

    digest = "sha256:" + hashlib.sha256(PROGRAM).hexdigest()
    header = message("BlobHeader")(digest=digest, size_bytes=len(PROGRAM), offset=0)
    put = message("PutBlobRequest")
    stored = call("PutBlob")(iter([put(header=header), put(data=PROGRAM)]))
    assert stored.received_bytes == len(PROGRAM), stored

    spec = message("RunSpec")(image="lite", params_json="{}", seed=3, required_metrics=["loss"])
    spec.files.add(path="program.py", digest=digest, size_bytes=len(PROGRAM), role=1)
    spec.limits.time_ms = 60_000
    run, owner = uuid7(), str(uuid.uuid4())
    start = message("StartRunRequest")(run_id=run, controller_id=owner, spec=spec.SerializeToString())
    call("StartRun")(start)
    call("StartRun")(start)  # the same id and bytes: the same run

    def watch(after):
        request = message("WatchRunRequest")(run_id=run, controller_id=owner, after_sequence=after)
        return [m.event for m in call("WatchRun")(request) if m.WhichOneof("message") == "event"]

    events = watch(0)
    sequences = [e.sequence for e in events]
    assert sequences == list(range(1, len(events) + 1)), sequences
    middle = sequences[len(sequences) // 2]
    again = watch(middle)
    assert [e.SerializeToString() for e in again] == [e.SerializeToString() for e in events[middle:]]

    finished = events[-1].finished
    stdout = b"".join(e.frame.data for e in events if e.WhichOneof("kind") == "frame" and e.frame.stream == 1)
    points = [p for e in events if e.WhichOneof("kind") == "frame" for p in e.frame.points]
    (artifact,) = finished.artifacts
    read = message("ReadArtifactRequest")(run_id=run, controller_id=owner, name=artifact.name)
    data = b"".join(part.data for part in call("ReadArtifact")(read))
    assert "sha256:" + hashlib.sha256(data).hexdigest() == artifact.digest

    other = message("WatchRunRequest")(run_id=run, controller_id=str(uuid.uuid4()))
    try:
        list(call("WatchRun")(other))
        raise AssertionError("another controller saw the run")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error

    release = message("ReleaseRunRequest")
    try:
        call("ReleaseRun")(release(run_id=run, controller_id=owner, last_sequence=1))
        raise AssertionError("a wrong last sequence was taken")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    call("ReleaseRun")(release(run_id=run, controller_id=owner, last_sequence=finished.last_sequence))
    try:
        call("GetRun")(message("GetRunRequest")(run_id=run, controller_id=owner))
        raise AssertionError("a released run is still known")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error

    print(json.dumps({
        "outcome": finished.outcome.kind,
        "events": len(events),
        "lines": stdout.count(b"\n"),
        "points": len(points),
        "artifact": data.decode(),
    }))


main(sys.argv[1])
