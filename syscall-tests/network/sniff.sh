# A packet socket with a filter sees what its program keeps, and as much of it: of all frames those of ICMP, to the end of the IP
# header.
inside python3 -c "
import ctypes, socket, struct, sys
program = [(0x28, 0, 0, 12), (0x15, 0, 3, 0x0800), (0x30, 0, 0, 23), (0x15, 0, 1, 1), (0x06, 0, 0, 34), (0x06, 0, 0, 0)]
code = b''.join(struct.pack('=HBBI', *i) for i in program)
room = ctypes.create_string_buffer(code)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HxxxxxxQ', len(program), ctypes.addressof(room)))
s.settimeout(10)
open('/tmp/ready', 'w').close()
for _ in range(8):
    frame = s.recv(2048)
    assert len(frame) == 34 and frame[12:14] == b'\x08\0' and frame[23] == 1, frame
print('seen')
" > "$WORK/sniffed" 2>&1 &
sniffer=$!
until_ok inside test -e /tmp/ready
# Frames of other kinds in between.
outside ping -q -c 2 -W 2 $GUEST6 > /dev/null || fail 'no ping over IPv6'
outside ping -q -c 4 -i 0.2 -W 2 $GUEST > /dev/null || fail 'no ping'
wait $sniffer || fail "$(cat "$WORK/sniffed")"
eq "$(cat "$WORK/sniffed")" seen
