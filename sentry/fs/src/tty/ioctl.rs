//! ioctls of terminals (ioctl_tty(2)).

use super::{Master, News, Replica, Tty};
use abi::Errno;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::termios::*;
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Caller, File};
use kernel::{SysError, SysResult, Task};

/// `TCIFLUSH`, `TCOFLUSH`, `TCIOFLUSH`
const FLUSH_IN: u64 = 0;
const FLUSH_OUT: u64 = 1;
const FLUSH_BOTH: u64 = 2;

fn int(task: &Task, arg: u64, value: i32) -> SysResult {
    UserPtr::new(arg).write(&task.mm(), &value)?;
    Ok(0)
}

fn read_int(task: &Task, arg: u64) -> Result<i32, SysError> {
    Ok(UserPtr::<i32>::new(arg).read(&task.mm())?)
}

impl Tty {
    /// Sets the terminal's settings; what they free or start is told.
    fn set_termios(&self, new: Termios, flush: bool) {
        let mut news = News::default();
        {
            let mut s = self.state.lock();
            if flush {
                s.ldisc.flush_input();
                s.pending.clear();
                news.master |= PollEvents::WRITABLE;
            }
            // Bits that pseudoterminals do not have: CSIZE is always CS8, and CREAD is on, PARENB off.
            let mut new = new;
            new.cflag = new.cflag & !0o460 | 0o260;
            new.line = 0;
            let old = s.ldisc.termios;
            let fx = s.ldisc.set_termios(new);
            s.apply(fx, &mut news);
            let extproc = (old.lflag | new.lflag) & lflag::EXTPROC != 0;
            let (was, is) = (flow(&old), flow(&new));
            if was != is {
                s.status &= !(pkt::NOSTOP | pkt::DOSTOP);
                s.note(if is { pkt::DOSTOP } else { pkt::NOSTOP }, &mut news);
            }
            if extproc {
                s.note(pkt::IOCTL, &mut news);
            }
            // What had no room may have some now, or be complete.
            s.pump(&mut news);
            if s.ldisc.ready(s.poll_minimum()) {
                news.replica |= PollEvents::READABLE;
            }
        }
        self.tell(news);
    }

    /// Waits until the other side has taken all output, as `TCSETSW` and `tcdrain` want. A pseudoterminal's output
    /// counts as sent once it is with the master, so there is nothing to wait for.
    fn termios(&self) -> Termios {
        self.state.lock().ldisc.termios
    }

    fn flush(&self, what: u64) -> SysResult {
        let mut news = News::default();
        {
            let mut s = self.state.lock();
            if !matches!(what, FLUSH_IN | FLUSH_OUT | FLUSH_BOTH) {
                return Err(Errno::EINVAL.into());
            }
            if what != FLUSH_OUT {
                s.ldisc.flush_input();
                s.pending.clear();
                s.note(pkt::FLUSHREAD, &mut news);
                news.master |= PollEvents::WRITABLE;
            }
            if what != FLUSH_IN {
                s.ldisc.output().clear();
                s.note(pkt::FLUSHWRITE, &mut news);
                news.replica |= PollEvents::WRITABLE;
            }
        }
        self.tell(news);
        Ok(0)
    }

    /// Those that both sides have: settings are always the terminal's.
    fn common_ioctl(&self, task: &Task, cmd: u32, arg: u64, from_master: bool) -> SysResult {
        let mm = task.mm();
        match cmd {
            TCGETS => {
                UserPtr::new(arg).write(&mm, &self.termios())?;
                Ok(0)
            }
            TCGETS2 => {
                let termios = self.termios();
                let speed = termios.baud();
                UserPtr::new(arg).write(&mm, &Termios2 { termios, ispeed: speed, ospeed: speed })?;
                Ok(0)
            }
            TCGETA => {
                let t = self.termios();
                let low = |v: u32| u16::try_from(v & 0xffff).unwrap_or(0);
                let mut cc = [0; 8];
                cc.copy_from_slice(&t.cc[..8]);
                let old = Termio {
                    iflag: low(t.iflag),
                    oflag: low(t.oflag),
                    cflag: low(t.cflag),
                    lflag: low(t.lflag),
                    line: t.line,
                    cc,
                    pad: 0,
                };
                UserPtr::new(arg).write(&mm, &old)?;
                Ok(0)
            }
            TCSETS | TCSETSW | TCSETSF | TCSETS2 | TCSETSW2 | TCSETSF2 | TCSETA | TCSETAW | TCSETAF => {
                if !from_master {
                    self.check_change(task)?;
                }
                let new = match cmd {
                    TCSETS | TCSETSW | TCSETSF => UserPtr::<Termios>::new(arg).read(&mm)?,
                    TCSETS2 | TCSETSW2 | TCSETSF2 => UserPtr::<Termios2>::new(arg).read(&mm)?.termios,
                    _ => {
                        let old = UserPtr::<Termio>::new(arg).read(&mm)?;
                        let mut t = self.termios();
                        let join = |high: u32, low: u16| high & 0xffff_0000 | u32::from(low);
                        t.iflag = join(t.iflag, old.iflag);
                        t.oflag = join(t.oflag, old.oflag);
                        t.cflag = join(t.cflag, old.cflag);
                        t.lflag = join(t.lflag, old.lflag);
                        t.cc[..8].copy_from_slice(&old.cc);
                        t
                    }
                };
                self.set_termios(new, matches!(cmd, TCSETSF | TCSETSF2 | TCSETAF));
                Ok(0)
            }
            TIOCGWINSZ => {
                UserPtr::new(arg).write(&mm, &self.window())?;
                Ok(0)
            }
            TIOCSWINSZ => {
                let w = UserPtr::<Winsize>::new(arg).read(&mm)?;
                self.set_window(w);
                Ok(0)
            }
            TIOCGPGRP => int(task, arg, self.foreground_number(task, from_master)?),
            TIOCSPGRP => {
                let nr = read_int(task, arg)?;
                self.set_foreground(task, nr)
            }
            TIOCGSID => int(task, arg, self.session_number(task, from_master)?),
            TIOCEXCL => {
                self.state.lock().exclusive = true;
                Ok(0)
            }
            TIOCNXCL => {
                self.state.lock().exclusive = false;
                Ok(0)
            }
            TIOCGEXCL => int(task, arg, self.state.lock().exclusive.into()),
            TIOCGETD => int(task, arg, 0),
            TIOCSETD => match read_int(task, arg)? {
                0 => Ok(0),
                _ => Err(Errno::EINVAL.into()),
            },
            TIOCGDEV => {
                use kernel::task::ControllingTty;
                let dev = u32::try_from(self.rdev()).unwrap_or(0);
                int(task, arg, dev.cast_signed())
            }
            _ => {
                kernel::gap!(task.kernel(), "ioctl of a terminal", cmd);
                Err(Errno::ENOTTY.into())
            }
        }
    }

    pub(super) fn replica_ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> SysResult {
        match cmd {
            FIONREAD => {
                let n = self.state.lock().ldisc.available();
                int(task, arg, i32::try_from(n).unwrap_or(i32::MAX))
            }
            TIOCOUTQ => int(task, arg, 0),
            TIOCSCTTY => self.set_controlling(task, arg == 1),
            TIOCNOTTY => self.give_up(task),
            TCFLSH => {
                self.check_change(task)?;
                self.flush(arg)
            }
            TCXONC => {
                self.check_change(task)?;
                let mut news = News::default();
                {
                    let mut s = self.state.lock();
                    match arg {
                        0 | 1 => {
                            s.ldisc.stopped = arg == 0;
                            let fx = super::ldisc::Effects { stopped: Some(arg == 0), ..Default::default() };
                            s.apply(fx, &mut news);
                        }
                        // The other side's flow: STOP and START characters to the master.
                        2 | 3 => {
                            let at = if arg == 2 { cc::VSTOP } else { cc::VSTART };
                            let c = s.ldisc.termios.cc[at];
                            if c != 0 {
                                s.ldisc.output().push_back(c);
                                news.master |= PollEvents::READABLE;
                            }
                        }
                        _ => return Err(Errno::EINVAL.into()),
                    }
                }
                self.tell(news);
                Ok(0)
            }
            // Breaks mean nothing to a pseudoterminal; output is drained already.
            TCSBRK | TCSBRKP => {
                self.check_change(task)?;
                Ok(0)
            }
            TIOCSTI => {
                // As with dev.tty.legacy_tiocsti=0: only for the privileged.
                if !task.creds().has_cap(CapSet::SYS_ADMIN) {
                    return Err(Errno::EIO.into());
                }
                let c = UserPtr::<u8>::new(arg).read(&task.mm())?;
                self.input(&[c]);
                Ok(0)
            }
            TIOCVHANGUP => {
                if !task.creds().has_cap(CapSet::SYS_ADMIN) {
                    return Err(Errno::EPERM.into());
                }
                self.hang_up();
                Ok(0)
            }
            TIOCPKT | TIOCGPKT | TIOCGPTN | TIOCSPTLCK | TIOCGPTLCK | TIOCGPTPEER | TIOCSIG => {
                Err(Errno::ENOTTY.into())
            }
            _ => self.common_ioctl(task, cmd, arg, false),
        }
    }

    pub(super) fn master_ioctl(
        &self,
        master: &Master,
        task: &Task,
        f: &File,
        cmd: u32,
        arg: u64,
    ) -> SysResult {
        match cmd {
            TIOCGPTN => {
                UserPtr::new(arg).write(&task.mm(), &self.index)?;
                Ok(0)
            }
            TIOCSPTLCK => {
                self.set_locked(read_int(task, arg)? != 0);
                Ok(0)
            }
            TIOCGPTLCK => int(task, arg, self.state.lock().locked.into()),
            TIOCPKT => {
                let on = read_int(task, arg)? != 0;
                let mut s = self.state.lock();
                if on && !s.packet {
                    s.status = 0;
                }
                s.packet = on;
                Ok(0)
            }
            TIOCGPKT => int(task, arg, self.state.lock().packet.into()),
            TIOCSIG => {
                let signal = i32::try_from(arg).ok().and_then(Signal::new);
                let known = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP];
                let signal = signal.filter(|s| known.contains(s)).ok_or(Errno::EINVAL)?;
                let group = kernel::task::ControllingTty::foreground(self);
                if let Some(g) = group {
                    g.send_signal(&SigInfo::kernel(signal));
                }
                Ok(0)
            }
            TIOCGPTPEER => {
                let flags = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
                let flags = OpenFlags::from_bits_truncate(flags);
                let creds = task.creds();
                let cx = Caller { creds: &creds, task: Some(task) };
                let path = master.instance().path_of(self.index, &f.path().mount)?;
                let Some(me) = self.me.upgrade() else { return Err(Errno::EIO.into()) };
                let peer = File::new(Replica::open(&me, &cx, flags)?, path, flags, creds.clone());
                let limit = task.group().soft_limit(abi::resource::Resource::Nofile);
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let fd = task.files().install(peer, flags.contains(OpenFlags::CLOEXEC), 0, limit)?;
                Ok(u64::from(fd.0.unsigned_abs()))
            }
            FIONREAD | TIOCOUTQ => {
                let n = if cmd == FIONREAD { self.state.lock().ldisc.output_len() } else { 0 };
                int(task, arg, i32::try_from(n).unwrap_or(i32::MAX))
            }
            TCFLSH => match arg {
                // Seen from the master the two directions change places.
                FLUSH_IN => self.flush(FLUSH_OUT),
                FLUSH_OUT => self.flush(FLUSH_IN),
                other => self.flush(other),
            },
            TCSBRK | TCSBRKP => Ok(0),
            TIOCSCTTY | TIOCNOTTY => Err(Errno::ENOTTY.into()),
            _ => self.common_ioctl(task, cmd, arg, true),
        }
    }
}

/// Whether ^S and ^Q work with their usual characters, as packet mode tells.
fn flow(t: &Termios) -> bool {
    t.iflag & iflag::IXON != 0 && t.cc[cc::VSTART] == 17 && t.cc[cc::VSTOP] == 19
}
