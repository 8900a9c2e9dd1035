"""One pod on its node: from its volumes to its end, in one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvl.testing.kubernetes.containers import (
    NAME,
    NEVER,
    POD,
    Container,
    ended,
    full_name,
    not_started,
    waiting,
    wanted,
)
from cvl.testing.kubernetes.engine_api import EngineError
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.images import BACK_OFF, PULL, ImageError, ensure
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, seconds_of, with_condition
from cvl.testing.kubernetes.resources import PODS
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.variables import ConfigError, environment
from cvl.testing.kubernetes.volumes import Volumes

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet

LOOK = 0.1
"""Seconds between two looks at the clock while a pod waits for a time."""

BACKOFF_LIMIT = 300.0
FORCED_GRACE = 2.0
"""Seconds."""

TYPES = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


class Ending(Exception):
    """Raised between two steps: the pod has to end. `reason` and `message` are its status."""

    def __init__(self, reason: str = "", message: str = "") -> None:
        super().__init__(reason)
        self.reason, self.message = reason, message


class PodWorker:
    """Runs one pod. `bell` is rung when something may have happened to it."""

    def __init__(self, kubelet: Kubelet, pod: Obj) -> None:
        self._kubelet, self._world, self._engine = kubelet, kubelet.world, kubelet.engine
        self.uid = str(meta(pod)["uid"])
        self.pod = pod
        self.bell = threading.Event()
        self.over = threading.Event()
        spec = pod["spec"]
        self.first = [Container(spec=each) for each in spec.get("initContainers") or []]
        self.main = [Container(spec=each) for each in spec["containers"]]
        self._folder = kubelet.folder / "pods" / self.uid
        self._volumes = Volumes(
            self._world, self._engine, self._folder / "volumes", kubelet.folder / "claims"
        )
        self._sandbox = ""
        self._address = ""
        self._reason, self._message, self._phase = "", "", "Pending"
        self._evict_at: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name=name_of(pod))

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def container(self, name: str) -> Container | None:
        """Return the container of that name."""
        return next((each for each in (*self.first, *self.main) if each.name == name), None)

    def _run(self) -> None:
        try:
            try:
                self._begin()
                self._live()
            except Ending as ending:
                self._end(ending)
            self._linger()
        except EngineError as error:
            if not self._kubelet.closing.is_set():
                self._world.complain(f"pod {name_of(self.pod)}: {error}")
        except OSError as error:
            if not self._kubelet.closing.is_set():
                self._world.complain(f"pod {name_of(self.pod)}: {error!r}")
        finally:
            self._clean()
            self.over.set()

    def _begin(self) -> None:
        """Prepare all that its containers need, and let those for its beginning run."""
        for each in self.main if self.first else ():
            each.state = waiting("PodInitializing")
        for each in self.first:
            each.state = waiting("PodInitializing")
        self._publish(startTime=self._world.now())
        self._until(self._mounted)
        self._network()
        for container in self.first:
            self._until_done(container)
        for container in self.main:
            self._start(container)
        if any(each.running or each.code is not None for each in self.main):
            self._phase = "Running"
        fault = self._world.strikes("run", What.EVICTED)
        if fault:
            self._evict_at = self._world.clock.monotonic() + fault.delay
        self._publish()

    def _live(self) -> None:
        """Follow the containers to their end, restarting them where the policy says so."""
        due: dict[str, float] = {}
        while True:
            for container in self.main:
                self._refresh(container)
                waits = container.name in due
                if container.running or not (waits or self._restarts(container)):
                    continue
                now = self._world.clock.monotonic()
                if not waits:
                    due[container.name] = now + self._rest(container)
                if now >= due[container.name]:
                    del due[container.name]
                    self._again(container)
            if not due and all(each.code is not None for each in self.main):
                break
            self._publish()
            self._wait(LOOK if due or self._evict_at is not None else None)
        self._phase = "Failed" if any(each.code for each in self.main) else "Succeeded"
        self._publish()

    def _end(self, ending: Ending) -> None:
        """TERM, the grace, KILL; then say what has become of it."""
        self._reason, self._message = ending.reason, ending.message
        alive = [each for each in (*self.first, *self.main) if each.running]
        for container in alive:
            self._tell("Killing", f"Stopping container {container.name}")
            self._engine.call("POST", f"/containers/{container.id}/kill", signal="TERM")
        asked = self._world.clock.monotonic()
        while any(each.running for each in alive):
            if self._world.clock.monotonic() >= asked + self._grace():
                for container in alive:
                    if container.running:
                        self._engine.call("POST", f"/containers/{container.id}/kill")
            self.bell.wait(LOOK)
            self.bell.clear()
            for container in alive:
                self._refresh(container)
        codes = [each.code for each in (*self.first, *self.main)]
        good = not self._reason and self.main and all(code == 0 for code in codes)
        started = any(each.ran for each in (*self.first, *self.main))
        if started or self._reason:
            self._phase = "Succeeded" if good else "Failed"
        begun = all(each.code == 0 for each in self.first)
        for container in self.main if started and begun else ():
            if container.code is None:
                container.state = _unknown()
        self._publish()

    def _grace(self) -> float:
        """Return the seconds between TERM and KILL; a second DELETE may have shortened them."""
        pod = self._current()
        if pod is None:
            return FORCED_GRACE
        told = meta(pod).get("deletionGracePeriodSeconds")
        return float(told if told is not None else pod["spec"]["terminationGracePeriodSeconds"])

    def _linger(self) -> None:
        """Wait until it is deleted; then let its object go."""
        while (pod := self._current()) is not None and not self._kubelet.closing.is_set():
            if meta(pod).get("deletionTimestamp"):
                self._kubelet.answering(self.pod)
                self._try_update(lambda obj: meta(obj).update(deletionGracePeriodSeconds=0))
            self.bell.wait()
            self.bell.clear()

    def _clean(self) -> None:
        for container in (*self.first, *self.main):
            for identity in (container.id, container.previous):
                if identity:
                    self._engine.remove(identity)
        if self._sandbox:
            self._engine.remove(self._sandbox)
        if self._address:
            self._kubelet.network.give_back(self._address)
        self._volumes.close()

    # --- steps

    def _check(self) -> None:
        """Raise `Ending` if the pod has to end."""
        self._kubelet.answering(self.pod)
        pod = self._current()
        if pod is None or meta(pod).get("deletionTimestamp") or self._kubelet.closing.is_set():
            raise Ending
        deadline, started = pod["spec"].get("activeDeadlineSeconds"), at(pod, "status", "startTime")
        if deadline and started and self._world.clock.time() >= seconds_of(started) + deadline:
            message = "Pod was active on the node longer than the specified deadline"
            raise Ending("DeadlineExceeded", message)
        if self._evict_at is not None and self._world.clock.monotonic() >= self._evict_at:
            message = (
                "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
            )
            raise Ending("Evicted", message)

    def _wait(self, seconds: float | None = None) -> None:
        """Wait until something may have happened. Raises `Ending`."""
        self._check()
        self.bell.wait(seconds)
        self.bell.clear()
        self._check()

    def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._wait(1.0)

    def _pause(self, seconds: float) -> None:
        ends = self._world.clock.monotonic() + seconds
        while self._world.clock.monotonic() < ends:
            self._wait(LOOK)

    def _mounted(self) -> bool:
        try:
            self._volumes.prepare(self.pod)
        except ConfigError as error:
            told = f"MountVolume.SetUp failed for volume: {error}"
            self._tell("FailedMount", told, warning=True)
            return False
        return True

    def _network(self) -> None:
        """Give it an address, and where several containers share it a sandbox that keeps it."""
        network, spec = self._kubelet.network, self.pod["spec"]
        if not spec.get("hostNetwork"):
            self._address = network.take()
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "resolv.conf").write_text(network.resolver(meta(self.pod)["namespace"]))
        (self._folder / "hosts").write_text(self._hosts())
        if self.first or len(self.main) > 1:
            pause: Obj = {
                "Image": self._kubelet.image,
                "Entrypoint": ["sleep", "2147483647"],
                "Labels": {POD: self.uid, NAME: "POD"},
                **self._place(),
            }
            pause["HostConfig"] |= {"Mounts": self._volumes.memory(), "IpcMode": "shareable"}
            self._sandbox = self._create(full_name(self.pod, "POD", 0), pause)
            self._engine.do("POST", f"/containers/{self._sandbox}/start")
        self._publish()

    def _hosts(self) -> str:
        spec, about = self.pod["spec"], meta(self.pod)
        host = spec.get("hostname") or name_of(self.pod)
        domain = (
            f"{spec['subdomain']}.{about['namespace']}.svc.cluster.local"
            if spec.get("subdomain")
            else ""
        )
        names = f"{host}.{domain}\t{host}" if domain else host
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
        if self._address:
            lines.append(f"{self._address}\t{names}")
        return "\n".join(lines) + "\n"

    def _place(self) -> Obj:
        """Return where its containers run: in its sandbox, or in a network of its own."""
        if self._sandbox:
            shared = f"container:{self._sandbox}"
            return {"HostConfig": {"NetworkMode": shared, "IpcMode": shared}}
        spec = self.pod["spec"]
        if spec.get("hostNetwork"):
            return {"HostConfig": {"NetworkMode": "host"}}
        name = self._kubelet.network.name
        endpoint = {"IPAMConfig": {"IPv4Address": self._address}}
        return {
            "Hostname": (spec.get("hostname") or name_of(self.pod))[:63].rstrip("-"),
            "HostConfig": {"NetworkMode": name},
            "NetworkingConfig": {"EndpointsConfig": {name: endpoint}},
        }

    def _until_done(self, container: Container) -> None:
        """Run a container of the beginning until it has succeeded. Raises `Ending`."""
        self._start(container)
        while True:
            self._refresh(container)
            if container.code == 0:
                self._publish()
                return
            if container.code is not None:
                if self.pod["spec"]["restartPolicy"] == "Never":
                    for each in self.main:
                        each.state = waiting("PodInitializing")
                    self._phase = "Failed"
                    self._publish()
                    raise Ending
                self._publish()
                self._pause(self._rest(container))
                self._again(container)
            self._publish()
            self._wait()

    def _start(self, container: Container) -> None:
        """Create and start a container, whatever it takes. Raises `Ending`."""
        self._check()
        self._until_imaged(container)
        env: dict[str, str] = {}

        def configured() -> bool:
            try:
                env.update(
                    environment(self._world.store, self._current() or self.pod, container.spec)
                )
            except ConfigError as error:
                self._stuck(container, "CreateContainerConfigError", f"{error}")
                return False
            return True

        self._until(configured)
        self._until(lambda: self._created(container, env))
        self._tell("Created", f"Created container {container.name}")
        self._check()
        try:
            self._engine.do("POST", f"/containers/{container.id}/start")
        except EngineError as error:
            container.state = not_started(container, error, self._world.clock.time())
            self._tell("Failed", f"Error: {error.message}", warning=True)
            return
        container.ran = True
        container.state = {"running": {"startedAt": self._world.now()}}
        self._tell("Started", f"Started container {container.name}")
        if container in self.main:
            self._phase = "Running"

    def _until_imaged(self, container: Container) -> None:
        wait = self._world.settings.pull_backoff
        while True:
            try:
                container.image_id = ensure(
                    self._engine,
                    str(container.spec["image"]),
                    str(container.spec["imagePullPolicy"]),
                    lambda: self._world.strikes("pull", What.NO_PULL) is not None,
                    self._tell,
                )
                return
            except ImageError as error:
                self._stuck(container, error.reason, error.message)
                if error.reason == PULL:
                    self._wait(1.0)
                    told = f'Back-off pulling image "{container.spec["image"]}"'
                    self._stuck(container, BACK_OFF, told, event="BackOff")
                self._pause(wait)
                wait = min(wait * 2, BACKOFF_LIMIT)

    def _created(self, container: Container, env: Mapping[str, str]) -> bool:
        try:
            mounts = self._volumes.mounts(container.spec, env) + self._furniture(container)
            body = wanted(self.pod, container, env, mounts, self._place())
            name = full_name(self.pod, container.name, container.restarts)
            container.id = self._create(name, body)
        except (EngineError, ConfigError) as error:
            self._stuck(container, "CreateContainerError", f"{error}")
            return False
        return True

    def _create(self, name: str, body: Obj) -> str:
        made = self._engine.do("POST", "/containers/create", body, name=name)
        return str(made["Id"])

    def _furniture(self, container: Container) -> list[Obj]:
        """Return the mounts that every container has: its last words, its resolver, its hosts."""
        words = self._words(container)
        words.parent.mkdir(parents=True, exist_ok=True)
        words.write_bytes(b"")
        words.chmod(0o666)
        files = [(words, container.spec["terminationMessagePath"])]
        if not self.pod["spec"].get("hostNetwork"):
            files += [(self._folder / name, f"/etc/{name}") for name in ("resolv.conf", "hosts")]
        taken = {each["mountPath"] for each in container.spec.get("volumeMounts") or []}
        return [
            {"Type": "bind", "Source": str(source), "Target": target}
            for source, target in files
            if target not in taken
        ]

    def _words(self, container: Container) -> Path:
        return self._folder / "words" / f"{container.name}-{container.restarts}"

    def _refresh(self, container: Container) -> None:
        if container.running:
            now = self._world.clock.time()
            if over := ended(self._engine, container, self._words(container), now):
                container.state = over

    def _restarts(self, container: Container) -> bool:
        policy = self.pod["spec"]["restartPolicy"]
        return policy == "Always" or (policy == "OnFailure" and bool(container.code))

    def _rest(self, container: Container) -> float:
        """Return how long to wait before the next start, in seconds; the first is at once."""
        if not container.restarts:
            return 0.0
        seconds = self._world.settings.restart_backoff * 2.0 ** (container.restarts - 1)
        rest = min(seconds, BACKOFF_LIMIT)
        container.last = container.state
        told = f"back-off {int(rest)}s restarting failed container={container.name}"
        self._tell(
            "BackOff", f"Back-off restarting failed container {container.name}", warning=True
        )
        container.last, container.state = (
            container.state,
            {
                **waiting("CrashLoopBackOff", told),
            },
        )
        self._publish()
        return rest

    def _again(self, container: Container) -> None:
        if container.previous:
            self._engine.remove(container.previous)
        if "terminated" in container.state:
            container.last = container.state
        container.previous, container.id = container.id, ""
        container.restarts += 1
        self._start(container)

    # --- what the API hears

    def _stuck(
        self, container: Container, reason: str, message: str, event: str = "Failed"
    ) -> None:
        container.state = waiting(reason, message)
        self._tell(event, message if event != "Failed" else f"Error: {message}", warning=True)
        self._publish()

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._world.event(PODS, self.pod, reason, message, warning=warning)

    def _current(self) -> Obj | None:
        about = meta(self.pod)
        found = self._world.store.find(PODS, about["namespace"], about["name"])
        return found if found is not None and meta(found)["uid"] == self.uid else None

    def _publish(self, **more: Any) -> None:
        """Write the pod's status: a node that is lost says nothing."""
        self._kubelet.answering(self.pod)

        def change(obj: Obj) -> None:
            status = obj.setdefault("status", {})
            for key, value in more.items():
                status.setdefault(key, value)
            status |= self._status()
            for kind, value in self._conditions():
                new = {"type": kind, "status": value, "lastProbeTime": None}
                found = status.get("conditions") or []
                status["conditions"] = with_condition(found, new, self._world.now())

        self._try_update(change)

    def _status(self) -> Obj:
        ready = self._phase == "Running"
        made: Obj = {"phase": self._phase, "hostIP": self._kubelet.address}
        made["hostIPs"] = [{"ip": made["hostIP"]}]
        address = self._address or (made["hostIP"] if self.pod["spec"].get("hostNetwork") else "")
        if address:
            made |= {"podIP": address, "podIPs": [{"ip": address}]}
        if self._reason:
            made |= {"reason": self._reason, "message": self._message}
        made["containerStatuses"] = [
            each.status(ready=ready and each.running) for each in self.main
        ]
        if self.first:
            made["initContainerStatuses"] = [
                each.status(ready=each.code == 0) for each in self.first
            ]
        return made

    def _conditions(self) -> Iterable[tuple[str, str]]:
        begun = all(each.code == 0 for each in self.first)
        ready = self._phase == "Running" and all(each.running for each in self.main)
        yield "PodReadyToStartContainers", str(bool(self._address) and not self.over.is_set())
        yield "Initialized", str(begun)
        yield "Ready", str(ready)
        yield "ContainersReady", str(ready)

    def _try_update(self, change: Callable[[Obj], object]) -> None:
        about = meta(self.pod)
        try:
            self._world.store.update(PODS, about["namespace"], about["name"], change, uid=self.uid)
        except ApiError:
            return  # it was deleted by force


def _unknown() -> Obj:
    """Return the state of a container that was never begun when its pod ended."""
    return {
        "terminated": {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": NEVER,
            "finishedAt": NEVER,
        }
    }
