"""The devices of a process: per device one token account and one thread; for all of them one pool that renders, and
the scores that are kept."""

from concurrent.futures import ThreadPoolExecutor

from reward_service.engine.admission import Account
from reward_service.engine.remote import RemoteDevice
from reward_service.engine.scheduler import DeviceThread, Observer
from reward_service.engine.score_cache import ModelScores, ScoreCache

RENDERING_THREADS = 4


class Device:
    """One device, shared by every model on it."""

    def __init__(self, name: str, max_queued_tokens: int, observer: Observer | None) -> None:
        self.name = name
        self.thread = DeviceThread(name, observer, parts=lambda: self.account.parts)
        self.account = Account(max_queued_tokens, self.thread.tokens_per_s)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait or are being computed."""
        return self.account.held


class Devices:
    """All devices, each made when the first model asks for it. Used from one event loop."""

    def __init__(
        self, *, max_queued_tokens: int, observer: Observer | None = None, scores: ScoreCache | None = None
    ) -> None:
        self._max_queued_tokens = max_queued_tokens
        self.observer = observer
        self._devices: dict[str, Device] = {}
        self._remotes: dict[str, RemoteDevice] = {}
        self.scores = scores
        self.rendering = ThreadPoolExecutor(RENDERING_THREADS, thread_name_prefix="rendering")

    @property
    def all(self) -> tuple[Device, ...]:
        """The devices that models have asked for."""
        return tuple(self._devices.values())

    def get(self, name: str) -> Device:
        """The device of that name."""
        if name not in self._devices:
            self._devices[name] = Device(name, self._max_queued_tokens, self.observer)
        return self._devices[name]

    def remote(self, name: str) -> RemoteDevice:
        """What computes a model that batches by itself; it is shared with no other."""
        return self._remotes.setdefault(name, RemoteDevice(name, self._max_queued_tokens, self.observer))

    @property
    def queues(self) -> tuple[Device | RemoteDevice, ...]:
        """Everything that holds tokens."""
        return (*self._devices.values(), *self._remotes.values())

    def scores_of(self, model: str, fingerprint: str) -> ModelScores | None:
        """The kept scores of a model; None where none are kept."""
        return None if self.scores is None else self.scores.of(model, fingerprint)

    async def close(self) -> None:
        """Finishes what was accepted, then stops every thread. Close the engines first."""
        for device in self.all:
            await device.thread.close()
        self.rendering.shutdown(wait=False, cancel_futures=True)
