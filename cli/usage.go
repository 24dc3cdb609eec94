package cli

import "fmt"

// usageError says that the command line itself is wrong; the exit status is 64, as istioctl's and sysexits.h's.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

const exitUsage = 64
