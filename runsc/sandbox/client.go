package sandbox

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"husk/runsc/boot"
)

// SocketName is the name of the control socket in a container's directory.
const SocketName = "control.sock"

// withSocketPath calls f with a path of at most sun_path's size for a name in dir.
func withSocketPath(dir, name string, f func(path string) error) error {
	if full := filepath.Join(dir, name); len(full) < 108 {
		return f(full)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name))
}

// Listen makes the control socket in a container's directory.
func Listen(dir string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = withSocketPath(dir, SocketName, func(path string) error {
		return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	})
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("control socket: %w", err)
	}
	return fd, nil
}

// Client is a connection to a sandbox's control server. It is used by one goroutine at a time.
type Client struct {
	conn  *boot.Conn
	words lastWords
	next  uint32
	stray int // replies that nobody waited for
}

// Connect connects to the sandbox whose socket is in dir; pid is its process.
func Connect(dir string, pid int) (*Client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn := boot.NewConn(fd)
	conn.SetTimeout(quickReply * time.Second) // a hostile one does not accept, and lets the backlog fill
	err = withSocketPath(dir, SocketName, func(path string) error {
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to the sandbox: %w", err)
	}
	return &Client{conn: conn, words: openLastWords(pid)}, nil
}

// NewClient makes a client of a connection that another process opened.
func NewClient(fd int) *Client {
	return &Client{conn: boot.NewConn(fd), words: lastWords{-1}, next: 1 << 16}
}

// FD is the connection, to be passed to another process.
func (c *Client) FD() int { return c.conn.FD() }

// Close closes the connection.
func (c *Client) Close() {
	c.conn.Close()
	c.words.close()
}

// quickReply is how long a sandbox may take to answer what it can answer at once. It is generous: a
// host may be overcommitted, but a command must not hang for ever on a hostile sandbox.
const quickReply = 60

// maxStray is how many replies to requests that were given up a connection may bring: few are ever given up.
const maxStray = 64

// Call sends a request and waits for its reply. An error of the sandbox is a *boot.Error.
func (c *Client) Call(k boot.Kind, m boot.Message) (*boot.Reply, error) {
	if k == boot.KindWait {
		return c.CallWithin(0, k, m)
	}
	return c.CallWithin(quickReply, k, m)
}

// CallWithin is Call with a limit in seconds to the time until the reply has been received, 0 for none.
func (c *Client) CallWithin(seconds int, k boot.Kind, m boot.Message) (*boot.Reply, error) {
	c.conn.SetTimeout(time.Duration(seconds) * time.Second)
	c.next++
	id := c.next
	err := c.conn.SendMessage(k, id, m)
	for err == nil {
		var f boot.Frame
		if f, err = c.conn.Recv(); err != nil {
			break
		}
		r := new(boot.Reply)
		if err = boot.Decode(&f, boot.KindReply, r); err == nil && f.ID != id { // a reply to an abandoned request
			if c.stray++; c.stray > maxStray {
				err = errors.New("too many replies")
			}
			continue
		}
		if err != nil {
			break
		}
		if r.Err.Code != boot.ErrNone {
			return nil, sandboxError(&r.Err)
		}
		return r, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		if w := c.words.read(); w != "" {
			return nil, fmt.Errorf("the sandbox died: %s", w)
		}
		return nil, ErrGone
	}
	if errors.Is(err, unix.EAGAIN) {
		return nil, fmt.Errorf("the sandbox did not answer within %d seconds", seconds)
	}
	return nil, fmt.Errorf("talk to the sandbox: %w", err)
}

// ErrGone says that the sandbox ended before it answered.
var ErrGone = errors.New("the sandbox has ended")
