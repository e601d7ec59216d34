"""What we lean on inside viser, which promises none of it: another viser has to be looked at before it is let in."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import viser
from viser import _messages, _viser
from viser.infra import _infra

from splat.viewer.serving.page import POSE
from splat.viewer.serving.server import ViewerError, check_version, open_server

ROOT = Path(__file__).resolve().parents[2]


def test_the_range_of_versions_is_pinned() -> None:
    assert '"viser>=1.1,<1.2"' in (ROOT / "pyproject.toml").read_text(encoding="utf8")
    check_version(viser.__version__)
    for other in ("1.0.21", "1.2.0", "2.1.1"):
        with pytest.raises(ViewerError, match=r"viser 1\.1"):
            check_version(other)


def test_viser_opens_its_port_by_the_call_that_is_caught() -> None:
    source = inspect.getsource(_infra.WebsockServer._background_worker)
    assert source.count("websockets.asyncio.server.serve(") == 1
    assert "process_request=(" in source and "max_size=" in source
    for ours in ("logger=", "open_timeout=", "close_timeout=", "create_connection=", "sock="):
        assert ours not in source


def test_the_call_is_as_it_was_afterwards() -> None:
    before = _infra.websockets.asyncio.server.serve
    open_server("127.0.0.1", 0, "t").close()
    assert _infra.websockets.asyncio.server.serve is before


def test_a_server_that_was_not_caught_is_closed(monkeypatch) -> None:
    from splat.viewer.serving import server as ours

    class Unseen:
        def __init__(self, **_: object) -> None:
            self.stopped = False
            made.append(self)

        def stop(self) -> None:
            self.stopped = True

    made: list[Unseen] = []
    monkeypatch.setattr(ours.viser, "ViserServer", Unseen)
    with pytest.raises(ViewerError, match="unseen"):
        open_server("127.0.0.1", 0, "t")
    assert [server.stopped for server in made] == [True]


def test_no_page_can_publish_itself() -> None:
    server = open_server("127.0.0.1", 0, "t")
    try:
        handled = server.viser._websock_server._incoming_handlers
        assert _messages.ShareUrlRequest not in handled and _messages.ShareUrlDisconnect not in handled
    finally:
        server.close()


def test_uploads_are_kept_where_we_bound_them() -> None:
    source = inspect.getsource(viser.GuiApi)
    assert "self._current_file_upload_states[message.transfer_uuid] = {" in source
    for key in ('"total_bytes": message.size_bytes', '"part_count": message.part_count', '"parts": {}'):
        assert key in source
    assert 'state["parts"][message.part_index] = message.content' in source


def test_callbacks_of_pages_run_where_we_hear_of_their_failures() -> None:
    source = inspect.getsource(viser.ClientHandle.__init__)
    assert source.count("thread_executor=server._thread_executor") == 2
    assert "self._thread_executor.submit(cb, client)" in inspect.getsource(viser.ViserServer)


def test_messages_of_a_page_pass_where_we_hear_of_their_failures() -> None:
    source = inspect.getsource(_infra.WebsockServer._background_worker)
    assert source.count("client_connection._handle_incoming_message(client_id, message)") == 1


def test_words_to_a_page_that_is_gone_are_dropped_where_we_say_so() -> None:
    from viser.infra._async_message_buffer import AsyncMessageBuffer

    assert "and not self._warned_push_after_done" in inspect.getsource(AsyncMessageBuffer.push)


def test_the_view_of_a_page_is_one_value() -> None:
    source = inspect.getsource(viser.ViserServer.__init__)
    assert source.count("client.camera._state = _CameraHandleState(") == 1
    fields = {field.name for field in dataclasses.fields(_viser._CameraHandleState)}
    assert {*POSE, "image_width", "image_height"} <= fields
    assert "self._state = _CameraHandleState(" in inspect.getsource(viser.CameraHandle.__init__)


def test_a_page_knows_its_server() -> None:
    assert "self._viser_server = server" in inspect.getsource(viser.ClientHandle.__init__)


def test_keys_reach_commands_before_they_reach_the_camera() -> None:
    source = Path(viser.__file__).parent / "client" / "src"
    assert 'document.addEventListener("keydown", onKeyDown)' in (source / "CameraControls.tsx").read_text()
    assert 'import { useHotkeys } from "@mantine/hooks"' in (source / "CommandPalette.tsx").read_text()
    assert "new Function(message.source)()" in (source / "MessageHandler.tsx").read_text()


def test_the_round_trip_and_the_picture_are_there() -> None:
    from viser._viser import LocalStorageHandle

    assert "timeout" in inspect.signature(LocalStorageHandle.get_item).parameters
    assert {"format", "jpeg_quality", "depth"} <= set(inspect.signature(viser.SceneApi.set_background_image).parameters)


def test_connections_can_be_counted_and_dropped_before_they_ask() -> None:
    from websockets.asyncio.server import Server, ServerConnection, serve

    assert "create_connection" in inspect.signature(serve).parameters
    assert "self.handlers: dict[ServerConnection" in inspect.getsource(Server)
    assert "start_connection_handler(self)" in inspect.getsource(ServerConnection.connection_made)
    assert "self.request is None" in inspect.getsource(ServerConnection)
