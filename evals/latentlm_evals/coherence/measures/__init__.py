"""The scores themselves: functions of arrays of states and labels, which know no model."""
