//go:build unix && !linux

package torture

import "syscall"

func endWithParent(*syscall.SysProcAttr) {}
