"""Protocol 2.0: packets survive the wire, damaged ones never act, and any stream of bytes is digested."""

import pytest
from dynamixel_sdk.protocol2_packet_handler import Protocol2PacketHandler
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors.dynamixel.tables import (
    MODEL_CONTROL_TABLE,
    MODEL_ENCODING_TABLE,
    MODEL_NUMBER_TABLE,
    MODEL_OPERATING_MODES,
)

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.dynamixel import ALERT, BROADCAST_ID, Instruction, Packet, PacketParser, StatusError, crc16
from lerobot_vla_plugin.twin.dynamixel_protocol import DynamixelProtocol
from lerobot_vla_plugin.twin.dynamixel_registers import XL330_M077, XL330_M288, XL430_W250, Area, Model
from lerobot_vla_plugin.twin.dynamixel_servo import DynamixelServo

MODELS = [XL330_M077, XL330_M288, XL430_W250]
# Bytes of the header are frequent, so that stuffing is at work all the time.
tricky = st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x01, 0x55]), max_size=30).map(bytes)
packets = st.builds(
    Packet,
    st.one_of(st.integers(0, 252), st.just(BROADCAST_ID)),
    st.integers(0, 255),
    st.one_of(tricky, st.binary(max_size=60)),
)
streams = st.lists(st.one_of(packets.map(Packet.to_bytes), st.binary(max_size=20), tricky)).map(b"".join)


def _parse(stream: bytes) -> list[Packet]:
    return PacketParser().feed(stream)


@pytest.mark.parametrize(
    ("packet", "wire"),
    [  # examples of the e-manual, "Protocol 2.0"
        (Packet(1, Instruction.PING), "ff ff fd 00 01 03 00 01 19 4e"),
        (Packet(1, Instruction.STATUS, bytes([0, 6, 4, 38])), "ff ff fd 00 01 07 00 55 00 06 04 26 65 5d"),
        (Packet(1, Instruction.WRITE, bytes([116, 0, 0, 2, 0, 0])), "ff ff fd 00 01 09 00 03 74 00 00 02 00 00 ca 89"),
        (
            Packet(BROADCAST_ID, Instruction.SYNC_READ, bytes([132, 0, 4, 0, 1, 2])),
            "ff ff fd 00 fe 09 00 82 84 00 04 00 01 02 ce fa",
        ),
    ],
)
def test_bytes_are_those_of_the_manual(packet: Packet, wire: str) -> None:
    assert packet.to_bytes() == bytes.fromhex(wire)


@given(st.lists(packets))
def test_packets_come_back_from_their_bytes(sent: list[Packet]) -> None:
    assert _parse(b"".join(packet.to_bytes() for packet in sent)) == sent


@given(packets)
def test_no_header_stands_inside_a_packet(packet: Packet) -> None:
    body = packet.to_bytes()[7:-2]
    assert all(body[i + 3 : i + 4] == b"\xfd" for i in range(len(body)) if body[i : i + 3] == b"\xff\xff\xfd")


@given(streams, st.data())
def test_any_stream_gives_the_same_packets_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = PacketParser()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [packet for piece in pieces for packet in parser.feed(piece)] == _parse(stream)


@given(streams)
def test_whatever_parses_undamaged_stands_in_the_stream_byte_for_byte(stream: bytes) -> None:
    for packet in _parse(stream):
        assert packet.damaged or packet.to_bytes() in stream


@given(st.binary(max_size=40).filter(lambda garbage: b"\xff" not in garbage), packets)
def test_a_packet_behind_garbage_is_found(garbage: bytes, packet: Packet) -> None:
    for between in (b"", b"\xff", b"\xff\xff"):
        assert _parse(garbage + between + packet.to_bytes()) == [packet]


@given(packets, st.data())
def test_one_changed_byte_never_yields_an_undamaged_packet_of_that_length(packet: Packet, data: st.DataObject) -> None:
    sent = bytearray(packet.to_bytes())
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    assert packet not in _parse(bytes(sent))


def test_a_damaged_packet_is_told_and_the_next_one_found() -> None:
    good = Packet(3, Instruction.PING)
    bad = bytearray(good.to_bytes())
    bad[-1] ^= 1
    assert _parse(bytes(bad) + good.to_bytes()) == [Packet(3, Instruction.PING, damaged=True), good]


@given(packets, st.binary(min_size=2, max_size=10))
def test_a_packet_inside_a_damaged_frame_is_found(packet: Packet, rest: bytes) -> None:
    inside = b"\x02" + packet.to_bytes()
    frame = b"\xff\xff\xfd\x00\x01" + (len(inside) + 2).to_bytes(2, "little") + inside
    wrong_crc = crc16(frame) ^ 1
    found = _parse(frame + wrong_crc.to_bytes(2, "little") + rest)
    assert (found[0].damaged, found[1]) == (True, packet)


@given(st.binary(max_size=60))
def test_the_crc_is_that_of_the_sdk(data: bytes) -> None:
    assert crc16(data) == Protocol2PacketHandler().updateCRC(0, list(data), len(data))


@pytest.mark.parametrize(
    "packet", [Packet(253, 1), Packet(255, 1), Packet(1, 256), Packet(1, 1, bytes(1020)), Packet(1, 1, damaged=True)]
)
def test_what_does_not_fit_the_frame_is_refused(packet: Packet) -> None:
    with pytest.raises(ValueError, match="expected"):
        packet.to_bytes()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_registers_stand_where_lerobot_looks_for_them(model: Model) -> None:
    theirs = MODEL_CONTROL_TABLE[model.name]
    for name, row in model.registers.items():
        their_name = "Present_Current" if name == "Present_Load" else name  # LeRobot has one table for all models
        if their_name in theirs:
            assert (row.address, row.length) == theirs[their_name], name
            assert row.signed or their_name not in MODEL_ENCODING_TABLE[model.name], name
    assert model.registers["Model_Number"].default == MODEL_NUMBER_TABLE[model.name]
    assert model.operating_modes == set(MODEL_OPERATING_MODES[model.name])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_registers_do_not_overlap_and_defaults_are_in_range(model: Model) -> None:
    taken = [a for row in model.registers.values() for a in range(row.address, row.address + row.length)]
    assert len(taken) == len(set(taken))
    for name, row in model.registers.items():
        assert row.area is (Area.EEPROM if row.address < 64 else Area.RAM), name
        assert not row.writable or row.low <= row.default <= row.high, name
        assert row.decode(row.encode(row.default)) == row.default


# Instructions ----------------------------------------------------------------------------------------------

POSITION, GOAL = XL330_M288.registers["Present_Position"], XL330_M288.registers["Goal_Position"]


class Chain:
    """Servos 1, 2 and 3, asked without a port."""

    def __init__(self) -> None:
        self.servos = {i: DynamixelServo(XL330_M288, JointCalibration(i, 0, 0, 0, 4095), 1000 + i) for i in (1, 2, 3)}

    def ask(self, id_: int, code: int, parameters: bytes = b"", time_s: float = 0.0) -> list[Packet]:
        return DynamixelProtocol().handle(self.servos, Packet(id_, code, parameters), time_s)

    def error(self, id_: int, code: int, parameters: bytes = b"") -> int:
        (reply,) = self.ask(id_, code, parameters)
        assert (reply.id, reply.code) == (id_, Instruction.STATUS)
        return reply.parameters[0]

    def goals(self) -> list[int]:
        return [servo.register("Goal_Position") for servo in self.servos.values()]


@pytest.fixture
def chain() -> Chain:
    return Chain()


def _where(row_address: int, length: int) -> bytes:
    return row_address.to_bytes(2, "little") + length.to_bytes(2, "little")


def _goal(ticks: int) -> bytes:
    return GOAL.address.to_bytes(2, "little") + ticks.to_bytes(4, "little", signed=True)


def test_ping_tells_model_and_firmware_and_a_broadcast_reaches_all(chain: Chain) -> None:
    (reply,) = chain.ask(2, Instruction.PING)
    assert reply == Packet(2, Instruction.STATUS, b"\0" + (1200).to_bytes(2, "little") + bytes([52]))
    assert [reply.id for reply in chain.ask(BROADCAST_ID, Instruction.PING)] == [1, 2, 3]


def test_sync_read_answers_in_the_order_asked_and_leaves_out_absent_servos(chain: Chain) -> None:
    replies = chain.ask(BROADCAST_ID, Instruction.SYNC_READ, _where(POSITION.address, 4) + bytes([3, 77, 1]))
    assert [(r.id, int.from_bytes(r.parameters[1:], "little")) for r in replies] == [(3, 1003), (1, 1001)]


def test_bulk_read_asks_each_for_something_else(chain: Chain) -> None:
    blocks = bytes([1]) + _where(144, 2) + bytes([2]) + _where(146, 1)
    assert [r.parameters[1:] for r in chain.ask(BROADCAST_ID, Instruction.BULK_READ, blocks)] == [
        b"\x32\0",
        b"\x1e",
    ]


def test_sync_write_and_bulk_write_reach_whom_they_name_and_nobody_answers(chain: Chain) -> None:
    data = _where(GOAL.address, 4) + b"\x01\x10\x00\x00\x00" + b"\x03\x20\x00\x00\x00"
    assert chain.ask(BROADCAST_ID, Instruction.SYNC_WRITE, data) == []
    assert chain.goals() == [16, 1002, 32]
    data = b"\x02" + _where(GOAL.address, 4) + b"\x05\0\0\0" + b"\x01" + _where(65, 1) + b"\x01"
    assert chain.ask(BROADCAST_ID, Instruction.BULK_WRITE, data) == []
    assert chain.goals() == [16, 5, 32]
    assert chain.servos[1].register("LED") == 1


def test_reg_write_waits_for_the_action(chain: Chain) -> None:
    assert chain.error(1, Instruction.REG_WRITE, _goal(2222)) == 0
    assert (chain.goals()[0], chain.servos[1].register("Registered_Instruction")) == (1001, 1)
    assert chain.error(1, Instruction.ACTION) == 0
    assert (chain.goals()[0], chain.servos[1].register("Registered_Instruction")) == (2222, 0)
    assert chain.error(1, Instruction.ACTION) == StatusError.INSTRUCTION


def test_an_instruction_without_sense_is_answered_with_its_error(chain: Chain) -> None:
    assert chain.error(1, 0x77) == StatusError.INSTRUCTION
    assert chain.error(1, Instruction.READ, b"\x00") == StatusError.DATA_LENGTH
    assert chain.error(1, Instruction.READ, _where(147, 2)) == StatusError.ACCESS
    assert chain.error(1, Instruction.WRITE, _goal(5)[:-2]) == StatusError.DATA_LENGTH
    (reply,) = DynamixelProtocol().handle(chain.servos, Packet(1, Instruction.PING, damaged=True), 0.0)
    assert reply.parameters == bytes([StatusError.CRC])


@pytest.mark.parametrize(("level", "answers"), [(0, [1, 0, 0]), (1, [1, 1, 0]), (2, [1, 1, 1])])
def test_the_return_level_decides_who_is_answered(chain: Chain, level: int, answers: list[int]) -> None:
    chain.servos[1].set_register("Status_Return_Level", level)
    asked = [(Instruction.PING, b""), (Instruction.READ, _where(POSITION.address, 4)), (Instruction.WRITE, _goal(9))]
    assert [len(chain.ask(1, code, parameters)) for code, parameters in asked] == answers


def test_a_change_of_id_is_still_answered_by_the_old_one(chain: Chain) -> None:
    assert chain.ask(1, Instruction.WRITE, b"\x07\x00\x09") == [Packet(1, Instruction.STATUS, b"\0")]
    assert chain.servos[1].id == 9


def test_a_reboot_ends_a_shutdown_after_a_pause(chain: Chain) -> None:
    chain.servos[1].overload()
    assert chain.error(1, Instruction.WRITE, b"\x40\x00\x01") == StatusError.RESULT_FAIL | ALERT
    chain.ask(1, Instruction.REBOOT)
    assert chain.servos[1].silent_until_s > 0.1
    assert chain.error(1, Instruction.WRITE, b"\x40\x00\x01") == 0


def test_talk_with_any_servo_keeps_the_watchdogs_of_all_quiet(chain: Chain) -> None:
    for name, value in {"Bus_Watchdog": 5, "Torque_Enable": 1}.items():
        row = XL330_M288.registers[name]
        chain.ask(1, Instruction.WRITE, row.address.to_bytes(2, "little") + row.encode(value))
    for time_s in (0.06, 0.12, 0.18, 0.24):
        chain.ask(2, Instruction.PING, time_s=time_s)
    chain.servos[1].advance(0.33)
    assert chain.servos[1].register("Bus_Watchdog") == 5
    chain.servos[1].advance(0.35)
    assert chain.servos[1].register("Bus_Watchdog") == -1


@given(st.lists(packets, max_size=10))
def test_no_packet_stops_the_servos(sent: list[Packet]) -> None:
    chain = Chain()
    for moment, packet in enumerate(sent):
        for reply in DynamixelProtocol().handle(chain.servos, packet, float(moment)):
            assert _parse(reply.to_bytes()) == [reply]
