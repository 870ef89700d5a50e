// Package getopt parses a command line as getopt_long(3) of the C library does, for
// programs that stand in the place of others, which people call from scripts.
//
// It computes only, in whichever process calls it.
package getopt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An Option is one that a program has.
type Option struct {
	Short byte   // 0 for none
	Long  string // "" for none
	Arg   bool   // it takes an argument
}

// Name is how the option is known to the program: the short name, or else the long one.
func (o Option) Name() string {
	if o.Short != 0 {
		return string(o.Short)
	}
	return o.Long
}

// A Given is an option that was given, by its Name.
type Given struct{ Name, Value string }

// Parse splits the arguments, without argv[0], in options and operands. Options may
// stand behind operands, unless inOrder is set: then the first operand ends them. "--"
// ends them in any case. The errors are in the words of the C library, without the
// program's name.
func Parse(args []string, options []Option, inOrder bool) (given []Given, operands []string, err error) {
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			return given, append(operands, args...), nil
		case len(a) < 2 || a[0] != '-':
			if inOrder {
				return given, append(append(operands, a), args...), nil
			}
			operands = append(operands, a)
			continue
		case strings.HasPrefix(a, "--"):
			var g Given
			if g, args, err = long(a, args, options); err != nil {
				return nil, nil, err
			}
			given = append(given, g)
			continue
		}
		for i := 1; i < len(a); i++ {
			o := slices.IndexFunc(options, func(o Option) bool { return o.Short == a[i] })
			if o < 0 {
				return nil, nil, fmt.Errorf("invalid option -- '%c'", a[i])
			}
			g := Given{Name: options[o].Name()}
			if options[o].Arg {
				if g.Value = a[i+1:]; g.Value == "" {
					if len(args) == 0 {
						return nil, nil, fmt.Errorf("option requires an argument -- '%c'", a[i])
					}
					g.Value, args = args[0], args[1:]
				}
				i = len(a)
			}
			given = append(given, g)
		}
	}
	return given, operands, nil
}

// long parses an option with a long name, of which a beginning is enough.
func long(a string, args []string, options []Option) (Given, []string, error) {
	name, value, has := strings.Cut(a[2:], "=")
	var fit []Option
	for _, o := range options {
		if o.Long == name && name != "" {
			fit = []Option{o}
			break
		}
		if o.Long != "" && strings.HasPrefix(o.Long, name) {
			fit = append(fit, o)
		}
	}
	switch {
	case len(fit) == 0:
		return Given{}, nil, fmt.Errorf("unrecognized option '%s'", a)
	case len(fit) > 1:
		text := fmt.Sprintf("option '%s' is ambiguous; possibilities:", a)
		for _, o := range fit {
			text += " '--" + o.Long + "'"
		}
		return Given{}, nil, errors.New(text)
	case has && !fit[0].Arg:
		return Given{}, nil, fmt.Errorf("option '--%s' doesn't allow an argument", fit[0].Long)
	case fit[0].Arg && !has:
		if len(args) == 0 {
			return Given{}, nil, fmt.Errorf("option '--%s' requires an argument", fit[0].Long)
		}
		value, args = args[0], args[1:]
	}
	return Given{fit[0].Name(), value}, args, nil
}
