"""Files in a zip archive that nobody unpacks: its directory is read once, then each file with one read, by any thread or process."""
import array
import struct
import zlib
from collections.abc import Iterator

from vlmjax.data.files_at import File, shown
from vlmjax.errors import UserError

STORED, DEFLATED = 0, 8

# An archive's end: 22 bytes, a comment of at most 65,535, and before it 76 of the large form.
_TAIL = 76 + 22 + 65_535

# The extra field of a local header may be longer than the directory's; what is read beyond it saves a second request.
_SLACK = 256


class Directory:
    """Where each file of an archive lies: 558,128 files in about 100 MB. An archive that cannot be read says so when a file is asked for."""

    def __init__(self, file: File):
        self._file, self.fault = file, ""
        self._index: dict[bytes, int] = {}  # name → row of `_rows`; of equal names the last, as zipfile does
        self._rows = array.array("q")  # start of the local header, packed size, size, CRC, method (−1: encrypted)
        try:
            for i, (name, row) in enumerate(_entries(self._file)):
                self._index[name] = i
                self._rows.extend(row)
        except UserError as error:
            self.fault = str(error)
        except (struct.error, IndexError):
            self.fault = f"{shown(file.path)}: is not a readable zip archive: its directory is cut short (is the download complete?)"

    def holds(self, name: str) -> bool:
        return name.encode(errors="surrogatepass") in self._index

    def read(self, name: str) -> bytes:
        if self.fault:
            raise UserError(self.fault)
        where = f"{shown(self._file.path)}: {name!r}"
        i = self._index.get(name.encode(errors="surrogatepass"))
        if i is None:
            raise UserError(f"{where}: there is no such file in the archive")
        start, packed, size, crc, method = self._rows[5 * i : 5 * i + 5]
        if method not in (STORED, DEFLATED):
            raise UserError(f"{where}: {'is encrypted' if method < 0 else f'is packed by method {method}, not stored or deflated'}; unpack the archive")
        # Local header: 30 bytes, of which the last four are the lengths of a name and of an extra field, both before the data.
        data = self._file.read(start, start + 30 + len(name.encode()) + _SLACK + packed)
        begin = 30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
        if begin + packed > len(data):
            data = self._file.read(start, start + begin + packed)
        try:
            content = data[begin : begin + packed]
            if method == DEFLATED:
                content = zlib.decompress(content, -15)
        except zlib.error:
            content = b""
        if data[:4] != b"PK\3\4" or len(content) != size or zlib.crc32(content) != crc:
            raise UserError(f"{where}: is damaged, or the archive has changed since it was opened")
        return content


def _entries(file: File) -> Iterator[tuple[bytes, tuple[int, int, int, int, int]]]:
    """(name in UTF-8, row of `Directory`) of each file of an archive (PKWARE's APPNOTE.TXT 6.3, sections 4.3.12 to 4.3.16 and 4.5.3)."""
    total = file.size()
    tail = file.read(max(0, total - _TAIL), total)
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        raise UserError(f"{shown(file.path)}: is not a readable zip archive: it has no directory at its end (is the download complete?)")
    size, start = struct.unpack_from("<2I", tail, end + 12)
    last = total - len(tail) + end  # where the directory ends
    if end >= 76 and tail[end - 20 : end - 16] == b"PK\6\7":  # its large form (zip64) stands before it
        size, start = struct.unpack_from("<2Q", tail, end - 76 + 40)
        last -= 76
    shift = last - size - start  # of an archive that something was put in front of
    directory = file.read(last - size, last) if shift >= 0 else b""
    if shift < 0 or len(directory) != size:
        raise UserError(f"{shown(file.path)}: is not a readable zip archive: its directory is cut short (is the download complete?)")
    at = 0
    while at < size:
        mark, flags, method, crc, packed, unpacked, name, extra, comment, start = struct.unpack_from("<4s4x2H4x3I3H8xI", directory, at)
        if mark != b"PK\1\2":
            raise UserError(f"{shown(file.path)}: is not a readable zip archive: its directory is damaged at byte {last - size + at}")
        at += 46
        text = directory[at : at + name]
        if 0xFFFFFFFF in (packed, unpacked, start):
            unpacked, packed, start = _large(directory[at + name : at + name + extra], unpacked, packed, start)
        at += name + extra + comment
        if not flags & 0x800 and not text.isascii():
            text = text.decode("cp437").encode()
        yield text, (start + shift, packed, unpacked, crc, -1 if flags & 1 else method)


def _large(extra: bytes, *fields: int) -> list[int]:
    """Sizes and offset of an entry; those that need more than 32 bits stand in field 1 of its extra data, in this order."""
    at = 0
    while at < len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            at += 4
            out = []
            for field in fields:
                out.append(field if field != 0xFFFFFFFF else struct.unpack_from("<Q", extra, at)[0])
                at += 8 * (field == 0xFFFFFFFF)
            return out
        at += 4 + length
    return list(fields)
