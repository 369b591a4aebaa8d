package mm

// Users is the number of users: tasks, and readers of /proc for a moment.
func (m *MemoryManager) Users() int32 { return m.users.Load() }
