cat > /tmp/p.py <<'P'
import asyncio, concurrent.futures, multiprocessing, os, queue, signal, socket, sqlite3, subprocess, sys, threading, time
def square(x): return x * x
async def ticker(n):
    for _ in range(n): await asyncio.sleep(0.001)
    return n
async def main():
    print('gather', await asyncio.gather(*(ticker(i) for i in range(10))))
    p = await asyncio.create_subprocess_exec('tr', 'a-z', 'A-Z', stdin=-1, stdout=-1)
    print('child', (await p.communicate(b'hello'))[0])
    async def serve(r, w):
        w.write((await r.readline()).upper()); await w.drain(); w.close()
    server = await asyncio.start_unix_server(serve, '/tmp/sock')
    r, w = await asyncio.open_unix_connection('/tmp/sock')
    w.write(b'over a socket\n'); print(await r.readline()); w.close(); server.close()
    try: await asyncio.wait_for(asyncio.sleep(5), 0.02)
    except asyncio.TimeoutError: print('timed out')
if __name__ == '__main__':
    results = queue.Queue()
    threads = [threading.Thread(target=lambda i=i: results.put(square(i))) for i in range(20)]
    [t.start() for t in threads]; [t.join() for t in threads]
    print('threads', sum(results.get() for _ in threads))
    print('subprocess', subprocess.run(['sh', '-c', 'cat; exit 3'], input=b'in', capture_output=True).returncode)
    print('shell', subprocess.check_output('echo $((6*7)); ls /proc/self/fd | wc -l', shell=True))
    with multiprocessing.Pool(4) as pool: print('pool', sum(pool.map(square, range(100))))
    ctx = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=ctx) as e: print('spawn', list(e.map(square, range(5))))
    a, b = multiprocessing.Pipe(); c = multiprocessing.Process(target=lambda: None); c.start(); c.join(); print('exit', c.exitcode)
    v = multiprocessing.Value('i', 0); l = multiprocessing.Lock(); print('shared', v.value, l.acquire(), l.release())
    db = sqlite3.connect('/tmp/db'); db.execute('create table t (a, b)')
    db.executemany('insert into t values (?, ?)', ((i, i * 2) for i in range(1000))); db.commit()
    print('sqlite', db.execute('select sum(b), count(*) from t').fetchone()); db.close()
    asyncio.run(main())
    signal.signal(signal.SIGALRM, lambda *_: print('alarm')); signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.05)
    r, w = os.pipe(); pid = os.fork()
    if pid == 0: os.write(w, b'child'); os._exit(5)
    print(os.read(r, 10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
P
python3 /tmp/p.py
sqlite3 /tmp/db 'pragma integrity_check; select max(a) from t; pragma journal_mode=wal; insert into t values (1,2); select count(*) from t'
