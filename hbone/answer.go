package hbone

// flush sends what was held back.
func (s *Stream) flush() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.flushLocked()
}

// whenAnswered has f called once the stream was answered: stands says that it is a tunnel now, and f must not wait then.
func (s *Stream) whenAnswered(f func(stands bool)) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.status == 0 && s.err == nil {
		s.answer = f
	} else {
		go f(false)
	}
}

// unanswered has the one who waits for the answer look why there is none.
func (s *Stream) unanswered() {
	s.c.mu.Lock()
	f := s.answer
	s.answer = nil
	s.c.mu.Unlock()
	if f != nil {
		f(false)
	}
}

// stands reports whether the answer to a stream that we opened made it a tunnel.
func (s *Stream) stands() bool { return s.status >= 200 && s.status < 300 }
