package sockets

// playRole makes the test binary a program of a pod where it is started as one.
func playRole() {}
