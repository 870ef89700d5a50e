package main

import (
	"context"
)

// console is a person at the guest's second serial port.
func (r *result) console(context.Context, string) {}
