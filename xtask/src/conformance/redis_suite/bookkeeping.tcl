# Redis's tests know their servers by process number. An update changes it, and gives a process another version as a child or
# as a parent. So whoever sends a signal to a server, or looks at it, is shown the process that serves now, and its own children
# only. SERVING is a folder: the file NUMBER holds the present number of the server that was started as NUMBER, and
# NUMBER.changing is there while that is about to change.

proc present pid {
    if {![info exists ::env(SERVING)]} {
        return $pid
    }
    set file [file join $::env(SERVING) $pid]
    # Every change has an end; the limit is for a run that was given up.
    for {set looks 0} {[file exists $file.changing] && $looks < 12000} {incr looks} {
        after 5
    }
    if {[catch {open_as_it_was $file} channel]} {
        return $pid
    }
    set present [string trim [read $channel]]
    close $channel
    return $present
}

# A version that follows is traced; a child that a server has made is not, but for a moment after its birth.
proc own_children pid {
    set own {}
    for {set looks 0} {$own eq {} && $looks < 200} {incr looks} {
        if {[catch {exec_as_it_was pgrep -P $pid} children]} {
            return {}
        }
        foreach child $children {
            if {![catch {exec_as_it_was grep "TracerPid:\t0" /proc/$child/status}]} {
                lappend own $child
            }
        }
        after 5
    }
    return $own
}

# NUMBER.stopped is there from when a test stops a server until it lets it go on: it is not updated meanwhile.
proc note_stop {pid args} {
    if {![info exists ::env(SERVING)]} {
        return
    }
    set file [file join $::env(SERVING) $pid.stopped]
    if {[lsearch -glob $args -*STOP] >= 0} {
        close [open_as_it_was $file w]
    } elseif {[lsearch -glob $args -*CONT] >= 0} {
        file delete $file
    }
}

rename exec exec_as_it_was
proc exec args {
    if {[lindex $args 0] in {kill ps}} {
        set shown {}
        foreach arg $args {
            if {[regexp {^[0-9]+$} $arg]} {
                set number $arg
                set arg [present $number]
                if {[lindex $args 0] eq "kill"} {
                    note_stop $number {*}$args
                }
            }
            lappend shown $arg
        }
        set args $shown
    }
    uplevel 1 [list exec_as_it_was {*}$args]
}

rename open open_as_it_was
proc open args {
    set what [lindex $args 0]
    if {[regexp {^\|pgrep -P ([0-9]+)$} $what - pid]} {
        set what "|printf %s\\n [own_children [present $pid]]"
    } elseif {[regexp {^/proc/([0-9]+)/(.*)$} $what - pid rest]} {
        set what "/proc/[present $pid]/$rest"
    }
    uplevel 1 [list open_as_it_was $what {*}[lrange $args 1 end]]
}
