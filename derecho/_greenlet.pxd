# greenlet's C API, declared once. A module that cimports this calls PyGreenlet_Import() before anything else: the
# macro fills a table that is static to each C file.

from cpython.ref cimport PyObject


cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass

    void PyGreenlet_Import() except *
    greenlet PyGreenlet_GetCurrent()
    # Without arguments (NULL, NULL) a switch builds no tuple.
    object PyGreenlet_Switch(greenlet target, PyObject* args, PyObject* kwargs)
