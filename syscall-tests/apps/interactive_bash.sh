# A person at a terminal: a pseudo-terminal is made and bash -i is played line by line.
cat > /tmp/play.py <<'P'
import fcntl, os, pty, re, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(PS1='$ ', TERM='dumb', HISTFILE='')
    os.execvp('bash', ['bash', '--norc', '--noprofile', '--noediting', '-i'])
seen = b''
def wait(what, limit=20):
    global seen
    end = time.monotonic() + limit
    while not re.search(what, seen):
        if time.monotonic() > end or not select.select([fd], [], [], end - time.monotonic())[0]:
            print('no', what, 'in', seen); os.kill(pid, 9); sys.exit(1)
        try: seen += os.read(fd, 4096)
        except OSError: print('closed before', what, seen); sys.exit(1)
    m = re.search(what, seen); out = seen[:m.end()]; seen = seen[m.end():]
    return out
def say(line, what=rb'\$ $'):
    os.write(fd, line + b'\n')
    text = wait(what)
    text = re.sub(rb'\[(\d)\] \d+', rb'[\1] PID', text)
    print(text.replace(b'\r', b'').decode(), end='|\n')
wait(rb'\$ ')
say(b'echo hello | tr a-z A-Z')
say(b'cat <<E\nfirst\nsecond\nE')
say(b'tty | sed s/[0-9]*$//')
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 77, 0, 0))
say(b'stty size')
os.write(fd, b'sleep 50\n'); time.sleep(0.4); os.write(fd, b'\x03'); wait(rb'\^C'); wait(rb'\$ '); print('interrupted')
say(b'echo status $?')
os.write(fd, b'sleep 60\n'); time.sleep(0.4); os.write(fd, b'\x1a'); wait(rb'Stopped'); wait(rb'\$ '); print('stopped')
say(b'jobs')
say(b'bg')
say(b'jobs')
os.write(fd, b'fg\n'); wait(rb'sleep 60'); time.sleep(0.3); os.write(fd, b'\x03'); wait(rb'\$ '); print('foreground and out')
say(b'jobs; echo none')
say(b'cat & sleep 0.3; jobs')
say(b'kill -9 %1; sleep 0.3')
say(b'echo gone')
os.write(fd, b'cat\nsome text\n\x04'); wait(rb'some text\r\nsome text'); wait(rb'\$ '); print('end of file')
say(b'(trap "echo got winch" WINCH; stty rows 20; sleep 0.2; true)')
say(b'set -o | grep monitor')
os.write(fd, b'exit 9\n')
try:
    while os.read(fd, 100): pass
except OSError: pass
print('bash ended with', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
P
exec python3 /tmp/play.py
