package boot

// Waiter is the message to the host process that stands for an additional process of a container:
// it passes signals on and ends with the exit code of what it stands for.
type Waiter struct {
	Container string
	PID       int32
	// Wait is the connection that started the process and keeps it alive, Control one for signals,
	// TTY the process's terminal or -1.
	Wait, Control, TTY int
}

func (w *Waiter) visit(c *coder) {
	c.str(&w.Container)
	c.i32(&w.PID)
	c.fd(&w.Wait)
	c.fd(&w.Control)
	c.fd(&w.TTY)
}
