"""The protocol: packets survive the wire, damaged ones never count, and any stream of bytes is digested."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors.feetech.tables import MODEL_CONTROL_TABLE, MODEL_ENCODING_TABLE, MODEL_NUMBER_TABLE

from lerobot_vla_plugin.twin.feetech import STS3215_REGISTERS, Area, Packet, PacketParser

packets = st.builds(Packet, st.integers(0, 254), st.integers(0, 255), st.binary(max_size=60))
streams = st.lists(st.one_of(packets.map(Packet.to_bytes), st.binary(max_size=20), st.just(b"\xff")))


def _parse(stream: bytes) -> list[Packet]:
    return PacketParser().feed(stream)


def test_bytes_of_a_ping_are_those_of_the_manual() -> None:
    assert Packet(1, 1).to_bytes() == bytes.fromhex("ff ff 01 02 01 fb")


@given(st.lists(packets))
def test_packets_come_back_from_their_bytes(sent: list[Packet]) -> None:
    assert _parse(b"".join(packet.to_bytes() for packet in sent)) == sent


@given(streams.map(b"".join), st.data())
def test_any_stream_gives_the_same_packets_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = PacketParser()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [packet for piece in pieces for packet in parser.feed(piece)] == _parse(stream)


@given(streams.map(b"".join))
def test_whatever_parses_stands_in_the_stream_byte_for_byte(stream: bytes) -> None:
    start = 0
    for packet in _parse(stream):
        start = stream.index(packet.to_bytes(), start) + len(packet.to_bytes())


@given(st.binary(max_size=40).filter(lambda garbage: b"\xff" not in garbage), packets)
def test_a_packet_behind_garbage_is_found(garbage: bytes, packet: Packet) -> None:
    assert _parse(garbage + packet.to_bytes()) == [packet]
    assert _parse(garbage + b"\xff" + packet.to_bytes()) == [packet]


@given(packets.filter(lambda p: b"\xff" not in p.parameters), st.data())
def test_one_flipped_bit_never_yields_that_packet(packet: Packet, data: st.DataObject) -> None:
    sent = bytearray(packet.to_bytes())
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert packet not in _parse(bytes(sent))


def test_a_packet_with_a_wrong_checksum_is_skipped_and_the_next_one_found() -> None:
    good = Packet(3, 2, b"\x38\x02")
    bad = bytearray(good.to_bytes())
    bad[-1] ^= 1
    assert _parse(bytes(bad) + good.to_bytes()) == [good]


@pytest.mark.parametrize("packet", [Packet(255, 1), Packet(1, 256), Packet(1, 1, bytes(245))])
def test_what_does_not_fit_the_frame_is_refused(packet: Packet) -> None:
    with pytest.raises(ValueError, match="expected"):
        packet.to_bytes()


def test_registers_stand_where_lerobot_looks_for_them() -> None:
    theirs = {name.strip(): row for name, row in MODEL_CONTROL_TABLE["sts3215"].items()}
    theirs.pop("Moving_Velocity")  # a second name of Moving_Velocity_Threshold
    assert {name: (row.address, row.length) for name, row in STS3215_REGISTERS.items()} == theirs
    signs = {name: row.sign_bit for name, row in STS3215_REGISTERS.items() if row.sign_bit is not None}
    assert signs == {k: v for k, v in MODEL_ENCODING_TABLE["sts3215"].items() if k in STS3215_REGISTERS}
    assert STS3215_REGISTERS["Model_Number"].default == MODEL_NUMBER_TABLE["sts3215"]


def test_registers_do_not_overlap_and_areas_are_in_order() -> None:
    taken = [a for row in STS3215_REGISTERS.values() for a in range(row.address, row.address + row.length)]
    assert len(taken) == len(set(taken))
    for row in STS3215_REGISTERS.values():
        expected = Area.EEPROM if row.address < 40 else Area.SRAM if row.address < 80 else Area.FACTORY
        assert row.area is expected
